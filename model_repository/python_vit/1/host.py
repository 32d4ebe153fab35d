"""What the process asks of its host before torch is imported: how threads wait, and who keeps memory.

Import it first. Measured on two cores, ViT-tiny in fp32.
"""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

# OpenMP's threads spin at every barrier; where the load shares the cores, one that lost its core makes the
# others spin for it, up to five times as long. To sleep at once costs a quarter; so they spin a little first.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# Memory given back to the system comes again a page fault at a time: a sixth of all time.
_libc = ctypes.CDLL(None)
if hasattr(_libc, "mallopt"):
    _libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    _libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
