"""What pre-training adds to distillation: operations that are counted, documents that are held out, curves that are drawn."""

import io
from collections.abc import Sequence
from pathlib import Path

from data_utils.draws import HELD_OUT
from data_utils.text.batches import TextBatch
from data_utils.text.masking import IGNORED
from distill import workers
from distill.distillation import Distillation, WeightedTerm
from distill.precision import autocast
from distill.progress import bar
from distill.rundir import RunDir, write_bytes
from distill.scores import Scores
from distill.teacher import Teacher
from distill.vocabulary_losses import best_words
from models.layers import layer_stack
from models.masked_lm import MaskedLM
from models.outputs import Outputs

WORD_TERMS = {"mlm", "kl"}  # those that read scores of words
PANELS = 3  # in a line
INCHES = 3.6, 2.9


class Pretraining(Distillation):
    """The terms of pre-training, and the operations of their matrix products.

    A layer of n tokens costs 2 n times its weights, and 4 D for each pair of tokens of which one sees the other; a scored word 2 E;
    backward as much again, twice. The products of relations and scores, a few per cent, are left out.
    """

    def __init__(self, teacher: Teacher | None, terms: Sequence[WeightedTerm], student: MaskedLM, source: MaskedLM | None):
        super().__init__(teacher, terms)
        reads = self.wanted
        self.passes = [(student, 3 if next(student.backbone.parameters()).requires_grad else 1, student.depth)]
        if source is not None and (reads.words or reads.layers):
            self.passes.append((source, 1, source.depth if reads.words else reads.layers))
        self.passes = [(times, _layer_weights(model, depth), depth * model.config.hidden_size) for model, times, depth in self.passes]
        self.word_cost = 2 * sum(model.backbone.get_input_embeddings().weight.numel() * times
                                 for model, times in ((student, 3), (source, 1)) if model is not None)

    def flops(self, batch: TextBatch) -> float:
        pairs = float(batch.pairs)
        layers = sum(times * (2.0 * weights * batch.tokens + 4.0 * width * pairs) for times, weights, width in self.passes)
        scored = max((term.count(batch) for name, term in self.terms.items() if name in WORD_TERMS), default=0)
        return layers + self.word_cost * scored


class Silent:
    """The teacher of a student that is not distilled."""

    def __call__(self, batch: TextBatch) -> Outputs:
        return Outputs(None)


def _layer_weights(model: MaskedLM, depth: int) -> int:
    owner, name = layer_stack(model.backbone)
    return sum(parameter.numel() for layer in getattr(owner, name)[:depth] for parameter in layer.parameters() if parameter.dim() > 1)


class Validation:
    """Scores a student on batches that stay the same: each term of its loss, and the share of masked words that it finds, where they
    are learned. What selects is the weighted sum of the terms, the lower the better.
    """

    def __init__(self, objective: Pretraining, batches: Sequence[TextBatch], cfg):
        self.objective, self.batches, self.cfg = objective, batches, cfg

    def __call__(self, student: MaskedLM) -> Scores:
        self.objective.eval()
        mine = workers.share(list(range(len(self.batches))))
        found: dict[int, tuple[dict[str, float], dict[str, int], int, int]] = {}
        with bar(len(mine), "evaluate", "batch") as progress_bar:
            for index in mine:
                found[index] = self._judge(student, self.batches[index])
                progress_bar.update()
        parts = {index: part for rank in workers.gather(found) for index, part in rank.items()}
        sums, counts, right, masked = zip(*(parts[index] for index in sorted(parts)), strict=True)
        terms = {name: sum(part[name] for part in sums) / max(sum(part[name] for part in counts), 1) for name in sums[0]}
        weights = self.objective.weights(1.0)
        loss = sum(weights[name] * value for name, value in terms.items())
        if not WORD_TERMS & terms.keys():
            return Scores({}, -loss, selected_on=HELD_OUT, terms=terms)
        share, name = sum(right) / sum(masked), f"{HELD_OUT}/accuracy"
        error = (share * (1 - share) / sum(masked)) ** 0.5
        return Scores({name: share}, -loss, {name: error}, {name: sum(masked)}, HELD_OUT, terms=terms)

    def _judge(self, student: MaskedLM, batch: TextBatch) -> tuple[dict[str, float], dict[str, int], int, int]:
        """Sums and counts of the terms, words found, words masked."""
        counts, batch = self.objective.counts(batch), batch.to(workers.device())
        with autocast(self.cfg, workers.device()):
            outputs = student(batch)
            sums = self.objective.sums(outputs, self.objective.teacher(batch), batch, self.objective.weights(1.0))
            where = batch.target != IGNORED
            right = best_words(outputs.words.features(where), outputs.words.weight, outputs.words.bias) == batch.target[where]
        return {name: float(value) for name, value in sums.items()}, counts, int(right.sum()), len(right)


def draw_curves(run_dir: RunDir) -> None:
    """Write curves.png into the run directory: every term of the loss in training and on held-out documents, the share of masked
    words found, and tokens per second."""
    from matplotlib.figure import Figure  # heavy, and only drawn with here; without pyplot: no display, no global state

    lines = run_dir.logged()
    steps, scored = [line for line in lines if "terms" in line], [line for line in lines if "heldout" in line]
    names = list(dict.fromkeys(name for line in steps for name in line["terms"]))
    height = -(-(len(names) + 2) // PANELS)
    figure = Figure(figsize=(INCHES[0] * PANELS, INCHES[1] * height), layout="constrained")
    axes = [figure.add_subplot(height, PANELS, place + 1) for place in range(len(names) + 2)]
    for axis, name in zip(axes, names):
        axis.plot(*_points(steps, "terms", name), linewidth=1.0, label="training")
        axis.plot(*_points(scored, "heldout", name), marker=".", label="held out")
        axis.set(title=f"loss term {name}", xlabel="optimiser step")
    axes[-2].plot(*_points(scored, "scores", "heldout/accuracy"), marker=".")
    axes[-2].set(title="masked words found, held out", xlabel="optimiser step")
    axes[-1].plot([line["step"] for line in steps], [line["tokens_per_second"] for line in steps], linewidth=1.0)
    axes[-1].set(title="tokens per second", xlabel="optimiser step", ylim=(0, None))
    for axis in axes:
        axis.grid(alpha=0.3)
    if names:
        axes[0].legend(frameon=False, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_bytes(Path(run_dir.path) / "curves.png", content.getvalue())


def _points(lines: list[dict], part: str, name: str) -> tuple[list[int], list[float]]:
    found = [(line["step"], line[part][name]) for line in lines if name in line.get(part, {})]
    return [step for step, _ in found], [value for _, value in found]
