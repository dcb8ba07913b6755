"""Pre-training runs beside one another on the same held-out masked words, word by word."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from data_utils.corpus import Corpus
from data_utils.text.batches import TextBatch
from data_utils.text.masking import IGNORED, Masking
from distill import workers
from distill.precision import tensor_cores
from distill.pretraining import judged_batches, judged_on
from distill.progress import bar
from distill.report.tables import markdown
from distill.rundir import read_json
from distill.vocabulary_losses import word_scores
from models.masked_lm import MaskedLM
from models.pretrained import masked_lm


def compare_held_words(runs: Sequence[Path], temperature: float) -> str:
    """A table of the runs' models, in float32: the share of words that is found, the loss -log p(word), the entropy of their distributions
    as they are and at a temperature, in nats; and found and loss minus those of the first run, with the standard error over words.

    ValueError where runs were judged on different words, or a model scores none.
    """
    rows = [_rows(run) for run in runs]
    for run, own in zip(runs, rows, strict=True):
        if judged_on(*own) != judged_on(*rows[0]):
            raise ValueError(f"{run} was judged on other words than {runs[0]}: compare runs of one corpus, layout and length")
    lines, first = [], None
    for run in runs:
        model = masked_lm(str(run / "best"))
        tokenizer = model.tokenizer
        batches = judged_batches(*rows[0], Masking(tokenizer.all_special_ids, tokenizer.mask_token_id, len(tokenizer)))
        found = _judge(model.to(workers.device()).eval(), batches, temperature, run)
        first = found if first is None else first
        lines.append([str(run), f"{100 * found[0].mean():.1f}", *(f"{column.mean():.3f}" for column in found[1:]),
                      _difference(100 * (found[0] - first[0]), 1), _difference(found[1] - first[1], 3)])
    header = ["", "found, %", "loss", "entropy", f"entropy at {temperature:g}", "found minus the first's", "loss minus the first's"]
    return f"{markdown(header, lines)}\n\n{first.shape[1]:,} masked words; ± standard errors over them"


def _rows(run: Path) -> tuple[Corpus, str, int]:
    """The text that a run read, and in which rows. ValueError for a run of another recipe."""
    settings = read_json(run / "config.json")
    if "corpus" not in settings:
        raise ValueError(f"{run} is no pre-training run: it read no packed text")
    return Corpus.open(settings["corpus"]), settings["layout"], settings["max_length"]


@torch.no_grad()
def _judge(model: MaskedLM, batches: Sequence[TextBatch], temperature: float, run: Path) -> np.ndarray:
    """Of every masked word whether it is found, its loss, and both entropies: [4, N]."""
    parts = []
    with bar(len(batches), f"judge {run}", "batch") as progress_bar, tensor_cores(workers.device()):
        for index in range(len(batches)):
            batch = batches[index].to(workers.device())
            where, words = batch.target != IGNORED, model(batch).words
            left = batch.target[where]
            for scores in word_scores(words.features(where), words.weight, words.bias):
                wanted, left = left[:len(scores)], left[len(scores):]
                shares, softened = scores.log_softmax(-1), (scores / temperature).log_softmax(-1)
                parts.append(torch.stack([(scores.argmax(-1) == wanted).float(), -shares.gather(-1, wanted[:, None])[:, 0],
                                          *(-(part.exp() * part).sum(-1) for part in (shares, softened))]).cpu())
            progress_bar.update()
    return torch.cat(parts, 1).double().numpy()


def _difference(values: np.ndarray, digits: int) -> str:
    """Mean and standard error; "-" where there is no difference."""
    return f"{values.mean():+.{digits}f} ± {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}" if values.any() else "-"
