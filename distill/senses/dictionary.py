"""SenseDictionary: the senses of every type as one packed table; save, load, import and export."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distill.rundir import SaveError, sync
from distill.senses import similarity_of
from models.heads import SenseLookup
from models.unpickle import read_kmeanspkl, write_kmeanspkl
from models.weights import write_tensors

FILE = "senses.safetensors"
DICTIONARY = "sense dictionary"  # the name, in origin.json, of the digest of what a student learned from


@dataclass(frozen=True)
class SenseDictionary:
    """The senses of type w are centroids[offsets[w] : offsets[w + 1]].

    centroids [N, D] float16; offsets [V + 1] int64; counts [V] int32, how often the type stands in the corpus;
    provenance: what the dictionary was built from (teacher, corpus, k, cap, layer, seed, ...), strings.
    """

    centroids: Tensor
    offsets: Tensor
    counts: Tensor
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def sizes(self) -> Tensor:
        """Senses of each type [V]."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def types(self) -> int:
        """Types that have senses."""
        return int((self.sizes > 0).sum())

    @property
    def nbytes(self) -> int:
        return self.centroids.nbytes + self.offsets.nbytes + self.counts.nbytes

    @property
    def similarity(self) -> str:
        """How a state's sense is chosen (SenseLookup)."""
        return similarity_of(self.provenance)

    def check_teacher(self, weights: str, depth: int) -> None:
        """ValueError where the provenance, which downloaded dictionaries lack, says that these are not senses of the last hidden
        states of the teacher with this fingerprint() and depth."""
        built, layer = self.provenance.get("teacher", weights), int(self.provenance.get("layer", -1))
        if built != weights:
            raise ValueError(f"--senses were built from another teacher (weights {built}) than --teacher ({weights}): name that one, or "
                             "build the dictionary of this one with `sh r2_construct_sense_dictionary.sh TASK`")
        if layer not in (-1, depth):
            raise ValueError(f"--senses were built from layer {layer} of the teacher, and its last hidden states are compared: build them "
                             f"with --layer {depth}")

    def lookup(self, device: torch.device = torch.device("cpu"), similarity: str | None = None) -> SenseLookup:
        """The look-up module over these senses on `device`; `similarity`: instead of the dictionary's own."""
        return SenseLookup(self.centroids, self.offsets, similarity or self.similarity).to(device)

    def digest(self) -> str:
        """Sixteen hex digits of the table."""
        table = hashlib.sha256(self.offsets.numpy().tobytes())
        table.update(self.centroids.numpy().tobytes())
        return table.hexdigest()[:16]

    def coverage(self, ids: np.ndarray) -> float:
        """Share of these tokens whose type has senses."""
        tokens_of_type = np.bincount(ids, minlength=len(self.sizes))[:len(self.sizes)]
        return float(tokens_of_type[self.sizes.numpy() > 0].sum() / len(ids))

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        temporary = path.with_name(path.name + ".tmp")
        try:
            write_tensors(temporary, {"centroids": self.centroids, "offsets": self.offsets, "counts": self.counts},
                          {"provenance": json.dumps(dict(self.provenance))})
            sync(temporary)
            temporary.replace(path)
            sync(path.parent, deep=False)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise SaveError(f"cannot write {path}: {error}. Free some space and run the same command again") from error

    @classmethod
    def load(cls, path: str | Path) -> "SenseDictionary":
        """From our safetensors, from the folder that r2 made, or from a published .kmeanspkl (read without executing
        anything). ValueError naming the file where it is missing or broken."""
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"no sense dictionary {path}: build one with `sh r2_construct_sense_dictionary.sh TASK`, "
                             "or name a downloaded .kmeanspkl")
        if path.suffix == ".kmeanspkl":
            return cls.from_senses(read_kmeanspkl(path), {"imported from": str(path)})
        try:
            with safe_open(path, "pt") as file:
                provenance = json.loads((file.metadata() or {}).get("provenance", "{}"))
                tensors = [file.get_tensor(name) for name in ("centroids", "offsets", "counts")]
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a readable sense dictionary ({error}): it may be truncated; build or fetch it "
                             "again") from error
        return cls(*tensors, provenance)

    @classmethod
    def from_senses(cls, senses: dict[int, Tensor], provenance: Mapping[str, str]) -> "SenseDictionary":
        """From {type: [m, D]}; the corpus counts are not known there and are 0."""
        if not senses:
            raise ValueError("the sense dictionary has no entry")
        sizes = torch.zeros(max(senses) + 1, dtype=torch.int64)
        for token, vectors in senses.items():
            sizes[token] = len(vectors)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        centroids = torch.cat([senses[token] for token in sorted(senses)]).half()
        return cls(centroids, offsets, torch.zeros(len(sizes), dtype=torch.int32), provenance)

    def export(self, path: Path) -> None:
        """Write the published .kmeanspkl: {type: float16 [m, D]}, readable by the published programs."""
        starts = self.offsets.tolist()
        write_kmeanspkl(path, {token: self.centroids[start:end]
                               for token, (start, end) in enumerate(zip(starts, starts[1:])) if end > start})
