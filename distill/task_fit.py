"""fit() on a task: over its train split, selected and reported by its own metrics."""

from collections.abc import Callable, Mapping

from torch import Tensor

from data_utils.batching import TrainStream
from data_utils.encode import EncodedDataset
from data_utils.tasks import Task
from distill.config import TrainConfig
from distill.engine import fit
from distill.evaluate import AS_IT_IS, score
from distill.objective import Objective
from distill.rundir import RunDir
from distill.scores import Scores
from distill.vocabulary import held_vocabulary
from models.encoder import Encoder
from models.outputs import Outputs


def fit_on_task(student: Encoder, objective: Objective, task: Task, train: EncodedDataset, evaluation: Mapping[str, EncodedDataset], cfg: TrainConfig,
                run_dir: RunDir, readings: Mapping[str, Callable[[Outputs], Tensor]] = AS_IT_IS) -> Scores:
    """fit() over `train`; the first split of `evaluation` selects. Holds only the word embeddings that these splits read
    (--trim_vocabulary). `readings`: as evaluate.score() takes them. Returns the scores of the best epoch."""
    stream = TrainStream(train, task.name, student.tokenizer.pad_token_id, cfg.train_batch_size, cfg.seed)
    with held_vocabulary(cfg, student, train, *evaluation.values()):
        return fit(student, objective, stream, cfg, run_dir, lambda model, to_beat: score(model, task, evaluation, readings, to_beat=to_beat))
