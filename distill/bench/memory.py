"""The most memory that a piece of work needs, as the kernel counts it."""

import ctypes
from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
SMALL, LARGE = 128 << 10, 32 << 20  # the bounds between which glibc moves its threshold, until it is told one


def peak_growth(work: Callable[[], object]) -> int:
    """Bytes by which this process's resident memory grew at most while `work()` ran (Linux with glibc).

    What earlier work had freed is given back first, or it would serve this work uncounted; and arrays are mapped one by one
    meanwhile, or what the allocator keeps for later would count.
    """
    glibc = ctypes.CDLL(None)
    glibc.mallopt(M_MMAP_THRESHOLD, SMALL)
    glibc.malloc_trim(0)
    CLEAR.write_text("5")  # the peak starts again from what is resident now
    before = _resident("VmRSS")
    work()
    glibc.mallopt(M_MMAP_THRESHOLD, LARGE)
    glibc.mallopt(M_TRIM_THRESHOLD, 2 * LARGE)  # as glibc has it beside that; else it gives every array back and faults it in again
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(field + ":")]
    return 1024 * int(line.split()[1])
