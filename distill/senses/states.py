"""The sampled states while a dictionary is built: in a file, or in the accelerator's memory where they fit.

Both are [S, D] float16; row numbers are those of Sample. What is in a file survives a kill.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill import workers
from distill.arrays import mapped_array
from distill.kmeans import padded_batch

CACHED_ROWS = 1024  # a CPU moves so many at a time: they stay in cache, and malloc reuses their pages
WORD = 8  # float16 numbers in the largest word that torch copies at a time, and it copies word by word
SHARE_OF_MEMORY = 0.5  # of what is free on the accelerator; the rest is the teacher's and the clustering's


class MappedStates:
    """States in a mapped file."""

    place = "file"

    def __init__(self, path: Path, shape: tuple[int, int]):
        self.vectors = mapped_array(path, shape, np.float16)
        word = torch.complex128 if shape[1] % WORD == 0 else torch.float16
        self._words = torch.from_numpy(self.vectors).view(word)  # the same memory

    def put(self, row: np.ndarray, hidden_ND: Tensor, place: np.ndarray) -> None:
        """Write hidden[place] to the rows `row`."""
        row, place = torch.from_numpy(row), torch.from_numpy(place).to(hidden_ND.device)
        piece = CACHED_ROWS if hidden_ND.device.type == "cpu" else max(len(row), 1)
        for part in range(0, len(row), piece):
            states_ND = hidden_ND.index_select(0, place[part:part + piece]).half().cpu()
            self._words.index_copy_(0, row[part:part + piece], states_ND.view(self._words.dtype))

    def rows(self, start: int, end: int) -> np.ndarray:
        """The states start:end."""
        return self.vectors[start:end]

    def problems(self, starts: np.ndarray, counts: np.ndarray, group: np.ndarray) -> Tensor:
        """As padded_batch(), on the device."""
        return padded_batch(self.vectors, starts, counts, group).to(workers.device())

    def flush(self) -> bool:
        """Bring the states to the disk; whether they are there."""
        self.vectors.flush()
        return True


class DeviceStates:
    """States in the memory of the device: collected and clustered without touching the disk, collected again after a kill."""

    place = "device"

    def __init__(self, shape: tuple[int, int]):
        self.vectors = torch.empty(shape, dtype=torch.float16, device=workers.device())

    def put(self, row: np.ndarray, hidden_ND: Tensor, place: np.ndarray) -> None:
        """As MappedStates.put."""
        row, place = (torch.from_numpy(index).to(hidden_ND.device) for index in (row, place))
        self.vectors[row] = hidden_ND.index_select(0, place).half()

    def rows(self, start: int, end: int) -> np.ndarray:
        """As MappedStates.rows."""
        return self.vectors[start:end].cpu().numpy()

    def problems(self, starts: np.ndarray, counts: np.ndarray, group: np.ndarray) -> Tensor:
        """As MappedStates.problems."""
        points_TND = self.vectors.new_zeros(len(group), int(counts[group].max()), self.vectors.shape[1])
        for line, problem in enumerate(group):
            points_TND[line, :counts[problem]] = self.vectors[starts[problem]:starts[problem] + counts[problem]]
        return points_TND

    def flush(self) -> bool:
        """As MappedStates.flush."""
        return False


def sampled_states(path: Path, shape: tuple[int, int]) -> MappedStates | DeviceStates:
    """Room for states of this shape: on the accelerator of a single process where they fit, else in the file `path`."""
    fits = workers.world() == 1 and 2 * shape[0] * shape[1] <= SHARE_OF_MEMORY * free_memory()
    return DeviceStates(shape) if fits else MappedStates(path, shape)


def free_memory() -> int:
    """Free bytes of the accelerator; 0 where there is none."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
