"""Real text for the measurements, tokenised; and the states that an encoder gives it."""

import numpy as np
import torch

from data_utils.batching import collate, sequential_batches
from data_utils.encode import EncodedDataset, encode
from data_utils.readers import read_examples
from data_utils.tasks import Task, get_task
from distill import workers
from distill.precision import autocast
from distill.progress import bar
from distill.evaluate import task_info
from models.encoder import Encoder
from models.pretrained import pretrained_encoder


def encoder_for(cfg, task: Task, pooling: str = "mean") -> Encoder:
    """The model of the measurements, with a fresh head for `task`."""
    torch.manual_seed(0)
    return pretrained_encoder(cfg.model, task_info(task, pooling), 0.1)


def sentences(cfg, encoder: Encoder, task: Task, tokens: int = 0) -> EncodedDataset:
    """The first training examples of `task`, with at least `tokens` tokens (all, for 0)."""
    examples = read_examples(task, "train", cfg.data_dir)
    data = encode(examples[:max(64, tokens // 4)] if tokens else examples, encoder.tokenizer, task.max_length, task=task)
    rows = int(np.searchsorted(data.offsets, tokens)) if tokens else len(data)
    return data.take(np.arange(min(max(rows, 1), len(data))))


@torch.no_grad()
def token_states(cfg) -> tuple[np.ndarray, np.ndarray]:
    """Ids [N] and last hidden states [N, D] float16 of about cfg.tokens tokens of cfg.task's training text."""
    task = get_task(cfg.task)
    encoder = encoder_for(cfg, task).eval().to(workers.device())
    data = sentences(cfg, encoder, task, cfg.tokens)
    ids, states = [], []
    batches = sequential_batches(data.lengths, workers.batch_tokens())
    with bar(len(batches), "states", "batch") as progress_bar:
        for rows in batches:
            batch = collate(data, rows, task.name, encoder.tokenizer.pad_token_id).to(workers.device())
            with autocast(cfg, workers.device()):
                hidden_BTD = encoder.encode(batch)[-1]
            real = batch.attention_mask.bool()
            ids.append(batch.input_ids[real].cpu().numpy())
            states.append(hidden_BTD[real].half().cpu().numpy())
            progress_bar.update()
    return np.concatenate(ids), np.concatenate(states)
