"""Scores: what an evaluation found."""

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Scores:
    """Metrics by "split/metric" (fractions or correlations, not percent).

    `selection` is the mean of the task's metrics on the first dev split. `errors` are bootstrap standard errors over
    the examples, `counts` the number of examples, of the same keys.
    """

    values: dict[str, float]
    selection: float
    errors: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict) -> "Scores":
        return cls(**content)
