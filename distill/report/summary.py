"""What the runs of a folder say together: scores over seeds, differences, retention, on which split models were selected."""

from collections import Counter
from collections.abc import Sequence
from statistics import mean, median

from data_utils.tasks import task_names
from distill.report.folder import Run
from distill.report.kept import Column, kept, only_selects, task_scores
from distill.report.paired import Difference, Seed, paired_difference

TIMES = ("milliseconds", "batched_milliseconds")  # facts of a Latency, that depend on the device and the task's texts


class Summary:
    """What `runs` say together: rows are systems, columns (task, split, metric). What is held out of train is no column.

    `baseline` and `teacher` are rows or "": differences are taken from the one, retention from the other. Times are those of one
    `device`, the one on which most was timed, and compared over the tasks `timed_on`, on which every system was that was timed there.
    """

    def __init__(self, runs: Sequence[Run], baseline: str = "", teacher: str = ""):
        self.runs, self.baseline, self.teacher = runs, baseline, teacher
        named = [name for name in (teacher, baseline) if name]
        self.rows = list(dict.fromkeys([*named, *sorted({run.row for run in runs})]))
        order = list(task_names())
        found = {(run.task.name, *key.split("/")) for run in runs for key in run.scores.values}
        keys = [key for run in runs for key in run.scores.values]
        self.columns = sorted((column for column in found if not only_selects(column[1])),
                              key=lambda column: (order.index(column[0]), keys.index(f"{column[1]}/{column[2]}")))
        self.device, self.timed_on = self._timing()
        self.doubts: list[str] = []
        self.differences = {(row, column): difference for row in self.rows if baseline and row != baseline
                            for column in self.columns if (difference := self._difference(row, column))}

    def of(self, row: str, task: str = "") -> list[Run]:
        """The runs of a system, on one task where it is given."""
        return [run for run in self.runs if run.row == row and task in ("", run.task.name)]

    def values(self, row: str, column: Column) -> dict[Seed, float]:
        """The score of each seed, a fraction or correlation."""
        task, split, metric = column
        return {run.seed: run.scores.values[f"{split}/{metric}"] for run in self.of(row, task)
                if f"{split}/{metric}" in run.scores.values}

    def typical(self, row: str, fact: str, task: str = "") -> float | None:
        """The median of a Run's `fact` ("parameters") over those runs of a system that know it. Of a time ("milliseconds"): on `device`, for
        `task`, or its mean over the tasks `timed_on`."""
        if fact in TIMES:
            times = {of: time for (of, device), time in self._times(row, fact).items() if device == self.device}
            return times.get(task) if task else mean(times[of] for of in self.timed_on) if times and self.timed_on else None
        known = [value for run in self.of(row, task) if (value := getattr(run, fact)) is not None]
        return median(known) if known else None

    def _timing(self) -> tuple[str, list[str]]:
        found = {row: list(self._times(row, TIMES[0])) for row in self.rows}
        devices = Counter(device for keys in found.values() for _, device in keys)
        device = max(devices, key=devices.get, default="")
        of_row = [{task for task, where in keys if where == device} for keys in found.values()]
        shared = set.intersection(*filter(None, of_row)) if devices else set()
        return device, sorted(shared, key=list(task_names()).index)

    def _difference(self, row: str, column: Column) -> Difference | None:
        task, split, metric = column
        ours, theirs = ({run.seed: run.predictions[split] for run in self.of(name, task) if split in run.predictions}
                        for name in (row, self.baseline))
        if not (self.values(row, column) and self.values(self.baseline, column)):
            return None
        try:
            if not (ours and theirs):
                raise ValueError(f"the runs of {self.baseline if ours else row} kept no predictions of {split}")
            return paired_difference(metric, ours, theirs)
        except ValueError as error:
            self.doubts.append(f"no paired test of {row} against {self.baseline} on {task} {split}, {metric}: {error}")
            return None

    def retention(self, row: str) -> tuple[float, int, int] | None:
        """What a system keeps of the teacher: the mean over tasks of kept(), of its means over seeds; over how many tasks; how many
        the teacher has."""
        theirs = self._means(self.teacher)
        shares = kept(self._means(row), theirs)
        return (mean(shares.values()), len(shares), len(task_scores(theirs))) if shares else None

    def speed_up(self, row: str, fact: str) -> tuple[float, int, int] | None:
        """How many times as fast as the teacher a system is: the mean over tasks of the teacher's `fact` (a Run's time) divided by
        the system's, where both were timed on one device, the table's if on several; over how many tasks; for how many the teacher was
        timed."""
        ours, theirs = self._times(row, fact), self._times(self.teacher, fact)
        shared = {key[0]: theirs[key] / ours[key] for key in sorted(theirs, key=lambda key: key[1] == self.device) if key in ours}
        return (sum(shared.values()) / len(shared), len(shared), len({task for task, _ in theirs})) if shared else None

    def _times(self, row: str, fact: str) -> dict[tuple[str, str], float]:
        """The median of a system's times, by task and device."""
        found: dict[tuple[str, str], list[float]] = {}
        for run in self.of(row):
            for device, latency in run.latencies.items():
                found.setdefault((run.task.name, device), []).append(getattr(latency, fact))
        return {key: median(times) for key, times in found.items()}

    def lacking(self, fact: str) -> dict[str, list[str]]:
        """The tasks of the table, by trained system, on which none of its runs knows `fact`; systems that lack nothing are left out."""
        tasks = dict.fromkeys(task for task, _, _ in self.columns)
        found = {row: [task for task in tasks if self.typical(row, fact, task) is None] for row in self.rows
                 if any(run.path for run in self.of(row))}
        return {row: tasks for row, tasks in found.items() if tasks}

    def disturbed(self) -> dict[str, list[str]]:
        """By system the tasks on which other programs disturbed a measurement of its time."""
        found: dict[str, list[str]] = {}
        for run in self.runs:
            if any(latency.disturbed for latency in run.latencies.values()) and run.task.name not in found.setdefault(run.row, []):
                found[run.row].append(run.task.name)
        return found

    def _means(self, row: str) -> dict[Column, float]:
        """A system's columns, each the mean over its seeds."""
        return {column: mean(values.values()) for column in self.columns if (values := self.values(row, column))}

    def selecting(self) -> dict[tuple[str, str], list[str]]:
        """The reported splits (task, split) that also selected the models of some systems, and which."""
        splits = dict.fromkeys(column[:2] for column in self.columns)
        found = {(task, split): [row for row in self.rows if any(run.scores.selected_on == split for run in self.of(row, task))]
                 for task, split in splits}
        return {split: rows for split, rows in found.items() if rows}
