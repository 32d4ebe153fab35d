"""How CUDA names its own failures in logs and error messages."""

from __future__ import annotations

# What CUDA, cuBLAS and torch say when a card's memory does not do, and when the card does not.
CUDA_MEMORY = r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|NVML_ERROR_MEMORY"
CUDA_FAULT = (
    r"(?P<a>CUDA error: (?!out of memory|no CUDA-capable)(?:(?!\\n)[^\n\"])+|CUDNN_STATUS_EXECUTION_FAILED"
    r"|CUBLAS_STATUS_EXECUTION_FAILED|GPU is lost|NVRM: Xid[^\n\"]+|fallen off the bus"
    r"|uncorrectable (?:NVLink |ECC )?error[^\n\"]*)"
)
