"""The fits before a recipe's last one: runs of their own, each made once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from distill.config import TrainConfig
from distill.rundir import RunDir
from distill.scores import Scores

APART = 1_000_003  # the seeds of two stages that follow one another


def seed_of(seed: int, number: int) -> int:
    """Of stage `number` of a run with `seed`: each has an order and dropout of its own, the first the run's."""
    return seed + number * APART


@dataclass(frozen=True)
class Stages:
    """Runs below `home`, made with the settings `cfg`. `facts`: what all of them read; `unread`: the settings that a kind of stage does not
    read, the kind being its name up to the first dash. Runs that differ in those alone share the stage."""

    cfg: TrainConfig
    home: RunDir
    facts: Mapping
    unread: Mapping[str, Sequence[str]]

    def run(self, name: str, make: Callable[[RunDir], Scores | None], **reads) -> RunDir:
        """The finished run directory of the stage, which also `reads` these facts.

        ValueError where it is there, made with other settings or from other facts.
        """
        place = self.home.stage(name)
        defaults = {entry.name: entry.default for entry in fields(self.cfg)}
        settings = replace(self.cfg, **{unread: defaults[unread] for unread in self.unread[name.split("-")[0]]})
        facts = {**self.facts, **reads}
        if place.is_done():
            place.check(settings, facts)
            return place
        place.begin(settings, facts)
        scores = make(place)
        place.finish_stage(scores.to_json() if scores else {"values": {}, "selection": 0.0})
        return place
