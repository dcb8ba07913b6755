"""The most memory that a piece of work needs, as the kernel counts it."""

import ctypes
from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_growth(work: Callable[[], object]) -> int:
    """Bytes by which this process's resident memory grew at most while `work()` ran (Linux with glibc).

    What earlier work had freed is given back first, or it would serve this work uncounted.
    """
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")  # the peak starts again from what is resident now
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(field + ":")]
    return 1024 * int(line.split()[1])
