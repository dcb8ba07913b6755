"""Scores: what an evaluation found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

IN_JSON = ("values", "selection", "errors", "counts", "selected_on", "terms")


@dataclass(frozen=True)
class Predictions:
    """What was predicted of a split, example by example: uid int64 [N]; predicted and target [N], class indices in the
    task's order, or scores; group int64 [N], where examples are judged together. Of questions over a text: predicted the
    credit of an answer (data_utils/answers.py), target whether there is one, text [N] the answer itself."""

    uid: np.ndarray
    predicted: np.ndarray
    target: np.ndarray
    group: np.ndarray | None = None
    text: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Predictions":
        """Those of the examples `rows`, in that order."""
        return Predictions(self.uid[rows], self.predicted[rows], self.target[rows],
                           *(None if array is None else array[rows] for array in (self.group, self.text)))

    def texts(self) -> dict[int, str]:
        """The answers to questions over a text, by uid."""
        return dict(zip(self.uid.tolist(), self.text.tolist(), strict=True))


@dataclass(frozen=True)
class Scores:
    """Metrics by "split/metric" (fractions or correlations, not percent).

    `selection` is the mean of the task's metrics on the split `selected_on`. `errors` are bootstrap standard errors over
    the examples, `counts` the number of examples, of the same keys. `predictions`, by split, are what the metrics were
    computed from: where they are known, and never in JSON. `terms`: the terms of the loss on the selecting split, where they were
    computed there.
    """

    values: dict[str, float]
    selection: float
    errors: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    selected_on: str = ""
    predictions: dict[str, Predictions] = field(default_factory=dict, compare=False, repr=False)
    terms: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict:
        return {name: getattr(self, name) for name in IN_JSON if name != "terms" or self.terms}

    @classmethod
    def from_json(cls, content: dict) -> "Scores":
        """The scores in `content`, which may hold more. Files older than `selected_on` were selected on their first split."""
        first = next(iter(content["values"]), "").split("/")[0]
        return cls(**{"selected_on": first, **{name: content[name] for name in IN_JSON if name in content}})


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and its standard error; no error for one seed."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


def save_predictions(predictions: Mapping[str, Predictions], file: Path) -> None:
    """Write an .npz with the arrays SPLIT/uid, SPLIT/predicted and SPLIT/target of every split, and SPLIT/group and
    SPLIT/text of those that have them."""
    np.savez(file, **{f"{split}/{name}": array for split, found in predictions.items() for name, array in vars(found).items()
                      if array is not None})


def load_predictions(file: Path) -> dict[str, Predictions]:
    """What save_predictions() wrote, by split."""
    with np.load(file) as arrays:
        splits = dict.fromkeys(name.rpartition("/")[0] for name in arrays.files)
        return {split: Predictions(**{name: arrays[f"{split}/{name}"] for name in Predictions.__dataclass_fields__
                                      if f"{split}/{name}" in arrays.files}) for split in splits}
