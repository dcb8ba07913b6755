"""Arrays that live in files, and rows that are in groups."""

import math
import os
from pathlib import Path

import numpy as np

from distill import workers
from distill.rundir import SaveError


def first_of_groups(group_N: np.ndarray, key_N: np.ndarray) -> np.ndarray:
    """Of every group, by rising number, the row whose key is least; the first of equals."""
    order = np.lexsort((key_N, group_N))
    return order[np.unique(group_N[order], return_index=True)[1]]


def mapped_array(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """An array on disk that all ranks may write. It is made once at its full size, so that a full disk is found before the
    work: a write into a mapped file that has no blocks would kill the process. ValueError on several machines: what one writes into a
    page of a file that lies across a network, the other may overwrite with what was there before."""
    if not workers.one_machine():
        raise ValueError(f"{path} would be written by several machines, of which one may lose what another wrote: senses are built, and a "
                         "teacher's outputs are cached, on one; start this with --nnodes 1")
    size = math.prod(shape) * np.dtype(dtype).itemsize

    def allocate() -> None:
        if path.exists() and path.stat().st_size == size:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise SaveError(f"cannot write {path} of {size / 2**20:.1f} MiB: {error.strerror}. Free some space and run the "
                            "same command again") from error

    workers.on_main(allocate)
    return np.memmap(path, dtype, "r+", shape=shape)
