"""--trim_vocabulary: training holds the word embeddings that its data read, and no others."""

import contextlib
import logging

import numpy as np

from data_utils.encode import EncodedDataset
from distill.config import TrainConfig
from models.encoder import Encoder
from models.vocabulary import trimmed

logger = logging.getLogger(__name__)


def held_vocabulary(cfg: TrainConfig, student: Encoder, *datasets: EncodedDataset) -> contextlib.AbstractContextManager:
    """The context in which `student` is trained and scored on `datasets`, which must be all that it is fed there.

    Its table of word embeddings holds, while the context lasts, the ids that occur in them and the tokenizer's special
    tokens (models/vocabulary.py: what is saved meanwhile is whole). Without cfg.trim_vocabulary it does nothing.
    """
    if not (cfg.trim_vocabulary if cfg.trim_vocabulary is not None else not cfg.fsdp):
        return contextlib.nullcontext()
    ids = np.unique(np.concatenate([*(dataset.ids for dataset in datasets), student.tokenizer.all_special_ids])).tolist()
    logger.info("training %d of %d word embeddings: those that occur in the data (--trim_vocabulary)", len(ids),
                student.config.vocab_size)
    return trimmed(student.backbone, ids)
