"""Signals that end a run at a step's edge or inside an evaluation, and the clock that asks for a checkpoint, on all ranks at once."""

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator

from distill import workers

SECONDS = 1.0  # between two questions to all ranks, which take time; torchrun waits 30 s for what it ends
STDERR = 2  # written past sys.stderr, whose own writing a signal may interrupt


class Cut(KeyboardInterrupt):
    """A signal arrived in what cutting() encloses."""


class Stop:
    """Whether a signal has reached some rank, and whether a checkpoint is due by rank 0's clock, every so many `minutes` (0: never).
    Ranks ask together: after each step or, where steps are short, after so many as take about SECONDS, which rank 0 measures at every
    question. `step`: how many were made before."""

    def __init__(self, minutes: float = 0.0, step: int = 0):
        self.received: list[str] = []
        self.cuts = False
        self.next, self.step, self.time = step, step, time.monotonic()
        self.minutes, self.due_at, self.due = minutes, 0.0, False
        self._wind()

    def asked(self, step: int) -> bool:
        """Whether the run is to end after this step: the same answer on every rank; so is `due`, whether to save."""
        self.due = False
        if workers.world() > 1 and step < self.next:
            return False
        rings = time.monotonic() >= self.due_at
        if rings:
            self._wind()
        if workers.world() == 1:
            self.due = rings
            return bool(self.received)
        taken, self.time = time.monotonic() - self.time, time.monotonic()
        answers = workers.gather((bool(self.received), taken / max(1, step - self.step), rings))
        self.due = answers[0][2]
        self.step, self.next = step, step + max(1, int(SECONDS / max(answers[0][1], 1e-6)))
        return any(received for received, _, _ in answers)

    @contextlib.contextmanager
    def cutting(self) -> Iterator[None]:
        """A signal does not wait for the end of what is done here: it raises Cut. Not among several ranks, which do it together."""
        self.cuts = workers.world() == 1
        try:
            if self.cuts and self.received:
                raise Cut
            yield
        finally:
            self.cuts = False

    def _wind(self) -> None:
        self.due_at = time.monotonic() + 60 * self.minutes if self.minutes else math.inf

    def heard(self) -> bool:
        """Whether a signal has reached some rank by now; all ask."""
        return workers.any_rank(bool(self.received))

    @property
    def reason(self) -> str:
        return self.received[0] if self.received else "another rank"


@contextlib.contextmanager
def signals(minutes: float = 0.0, step: int = 0) -> Iterator[Stop]:
    """Collect SIGINT and SIGTERM, and say so; `step`: as of Stop. A second SIGINT, of somebody at the keyboard, ends at once; SIGTERM may
    come twice, of torchrun and of what ended that."""
    stop = Stop(minutes, step)

    def note(number, frame):
        stop.received.append(signal.Signals(number).name)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        if stop.cuts:
            raise Cut
        if workers.is_main():
            again = "; Ctrl-C again quits without saving" if number == signal.SIGINT else ""
            with contextlib.suppress(OSError):  # a terminal that is gone
                os.write(STDERR, f"\n{stop.received[-1]}: finishing this step and saving{again}\n".encode())

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
