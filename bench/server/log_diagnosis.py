"""Why a tritonserver did not start, or a model did not load: one sentence from a log."""

from __future__ import annotations

import re
import signal

from bench.core.cuda_messages import CUDA_FAULT, CUDA_MEMORY

_SIGNALLED = 128  # Shells and our supervisor add the signal's number to this exit code.
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")
_TAIL, _LAST_LINES, _LONGEST_LINE = 40, 3, 160
_PREFIX = r"^[EIWF]\d{4} [\d:.]+ \d+ "  # The glog library begins lines with level and date, time, thread.
_ERROR = r"^E\d{4} |[Ee]rror"
# Every server without a GPU logs these as errors.
_NOISE = r"CudaDriverHelper has not been initialized|Failed to initialize NVML"
_PORT_TAKEN = r"Socket '(?P<a>[^']+)' already in use"
# An error as Python names it, up to its end: a line's, or where Triton writes the traceback as "\n\nAt:\n".
_PYTHON_ERROR = r"(?P<a>(?:TritonModelException|Exception|\w+Error): (?:(?!\\n|\"\n)[^\n])+)"
_MEMORY_TOLD = r"CUDA out of memory\. (?P<a>(?:(?!\\n)[^\n\"])*?is free)"

# The first that matches names the cause; groups fill the sentence.
_CAUSES: tuple[tuple[str, str], ...] = (
    (
        _PORT_TAKEN,
        "A port is taken ({a}): choose others with --http-port, --grpc-port and --metrics-port, "
        "or 0 for any free one.",
    ),
    (r"cannot run (?P<a>[^\n]+)", "tritonserver cannot be run ({a}): give another with --tritonserver."),
    (
        r"libpython[\d.]+so\S*: cannot open shared object|undefined symbol: _?Py",
        "The Python backend's stub finds no libpython that matches this Python: use a Python built with "
        "--enable-shared (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared).",
    ),
    (
        r"error while loading shared libraries: (?P<a>[^:\s]+)",
        "tritonserver lacks the library {a}: install it, or put its folder on LD_LIBRARY_PATH.",
    ),
    (
        r"GLIBC_(?P<a>[\d.]+)' not found",
        "tritonserver needs glibc {a} or newer: use --url with one that runs elsewhere.",
    ),
    (
        r"Unable to initialize shared memory key|Failed to increase the shared memory|No space left on",
        "Shared memory is full: free or enlarge /dev/shm (docker: --shm-size=1g).",
    ),
    (
        r"ModuleNotFoundError: No module named '(?P<a>[^']+)'",
        "The model imports {a}, which is not installed in the server's environment: pip install it there.",
    ),
    (
        r"ImportError: (?P<a>(?:(?!\\n)[^\n\"])+)",
        "The model's imports failed ({a}): repair the server's Python environment.",
    ),
    (_MEMORY_TOLD, "The GPU's memory is full ({a}): fewer instances, a smaller max batch, or bf16."),
    (CUDA_MEMORY, "The GPU's memory is full: fewer instances, a smaller max batch, or bf16."),
    (
        r"(?P<a>no CUDA-capable device is detected|No CUDA GPUs are available|Found no NVIDIA driver"
        r"|all CUDA-capable devices are busy or unavailable|invalid device ordinal)",
        "The server finds no GPU it can use ({a}): look whether nvidia-smi lists the card there, and with "
        "which driver.",
    ),
    (
        CUDA_FAULT,
        "The GPU failed or disappeared ({a}): look for Xid lines in the kernel's log (dmesg) on the server; "
        "Xid 79 means the card fell off the bus.",
    ),
    (
        r"has kind KIND_GPU but no GPUs are available",
        "The model's instance_group asks for a GPU and the server has none: KIND_CPU or KIND_AUTO serve it.",
    ),
    (
        r"unable to find backend library for backend '(?P<a>[^']+)'",
        "This tritonserver has no {a} backend: give one that has it with --tritonserver.",
    ),
    (
        r"failed to poll model '(?P<a>[^']+)': model not found",
        "The model repository holds no {a}: check --repository and --model.",
    ),
    (
        r"failed to (?:open text file for read|read text proto from) (?P<a>[^:\"\n]+)",
        "{a} is missing, or no model configuration: repair it.",
    ),
    (
        r"failed to (?:stat|open the) file:? (?P<a>[^\s\"]+)",
        "The model repository {a} cannot be read: check --repository.",
    ),
    (
        r"Stub process '(?P<a>[^']+)' is not healthy",
        "The model's Python process ({a}) died while it started: look for a crash, or for the kernel's "
        "out-of-memory killer.",
    ),
    (_PYTHON_ERROR, "The model failed to start: {a}."),
)


def explain(log: str, code: int | None = None) -> str:
    """Why it ended: a signal, a known cause, or else the log's last error; with the next step where known."""
    if code is not None and code > _SIGNALLED:
        name = signal.Signals(code - _SIGNALLED).name
        if name in _CRASHES:
            return f"tritonserver crashed ({name}). {_last_words(log)}"
        who = "look for who sent it (the kernel, when memory ran out?)"
        return f"tritonserver was ended by {name}: {who}. {_last_words(log)}"
    known = known_cause(log)
    if known:
        return known
    errors = [line for line in log.splitlines() if re.search(_ERROR, line) and not re.search(_NOISE, line)]
    last = errors[-1].strip() if errors else "its log names no error"
    ended = "" if code is None else f" with code {code}"
    return f"tritonserver ended{ended}: {last.rstrip('.')}."


def _last_words(log: str) -> str:
    """The cause if the end of the log has one, else the end itself."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not re.search(_NOISE, line)]
    cause = known_cause("\n".join(lines[-_TAIL:]))
    if cause:
        return cause
    last = " | ".join(re.sub(_PREFIX, "", line)[:_LONGEST_LINE] for line in lines[-_LAST_LINES:])
    return f"Its log ends: {last.rstrip('.')}." if last else "Its log is empty."


def known_cause(log: str) -> str:
    """The cause in a sentence, or ""."""
    for pattern, sentence in _CAUSES:
        found = re.search(pattern, log)
        if found:
            groups = {"a": "", **{k: (v or "").rstrip(" .;") for k, v in found.groupdict().items()}}
            return sentence.format(**groups).replace(" ()", "")
    return ""


def is_port_taken(log: str) -> bool:
    return re.search(_PORT_TAKEN, log) is not None
