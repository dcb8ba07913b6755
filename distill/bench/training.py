"""Fine-tuning on real text: the engine against transformers' Trainer, with run_glue's padding and with dynamic padding."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from data_utils.batching import TrainStream, collate
from data_utils.encode import EncodedDataset
from data_utils.tasks import get_task
from distill import workers
from distill.bench.corpus import encoder_for, sentences
from distill.bench.engine_rounds import SKIPPED, engine_round
from distill.bench.timing import Comparison, training_flops
from distill.precision import uses_bf16
from distill.recipes.finetune import LabelObjective
from models.encoder import Encoder

BATCH = 32
PADDED = 128  # run_glue's max_seq_length
TOLERANCE = 1e-4
LEARNING_RATE = 1e-4


def comparisons(cfg) -> Iterator[Comparison]:
    """The same model, data and batch size; the Trainer in float32 with its defaults."""
    for padding, name in ((PADDED, f"transformers' Trainer, padded to {PADDED}, float32"),
                          (0, "transformers' Trainer, dynamic padding, float32")):
        sides = Sides(cfg, padding)
        yield Comparison(f"fine-tuning on {cfg.task}", name, "tokens", sides.ours, sides.theirs, sides.check,
                         training_flops(sides.encoder.config, float(sides.data.lengths.mean())),
                         uses_bf16(cfg, workers.device()))


class Sides:
    """Our encoder and transformers' model with the same weights, on the same examples; theirs padded to `padding`
    tokens, 0: to the longest of each batch."""

    def __init__(self, cfg, padding: int):
        self.cfg, self.task, self.padding = cfg, get_task(cfg.task), padding
        self.encoder = encoder_for(cfg, self.task, pooling="cls").to(workers.device())
        self.data = sentences(cfg, self.encoder, self.task)
        self.pad_id = self.encoder.tokenizer.pad_token_id
        self.model = transformers_model(self.encoder)
        self.stream = TrainStream(self.data, self.task.name, self.pad_id, BATCH, seed=0)

    def ours(self) -> tuple[float, float]:
        tokens, seconds = engine_round(self.encoder, LabelObjective(self.task), self.stream, self.cfg.steps, [self.data],
                                       learning_rate=LEARNING_RATE, bf16=self.cfg.bf16, fp16=self.cfg.fp16)
        return sum(tokens), sum(seconds)

    def theirs(self) -> tuple[float, float]:
        """As many steps of a Trainer; the time between the ends of its steps."""
        from transformers import TrainerCallback

        tokens, ends = [], []

        def together(rows: list[int]) -> dict[str, torch.Tensor]:
            batch = padded(self.data, np.array(rows), self.pad_id, self.padding)
            tokens.append(int(batch["attention_mask"].sum()))
            return batch

        class Clock(TrainerCallback):
            def on_step_end(self, args, state, control, **others):
                ends.append(time.perf_counter())

        train_with_transformers(self.model, len(self.data), together, callbacks=[Clock()], max_steps=self.cfg.steps)
        counted = slice(SKIPPED, self.cfg.steps)
        return sum(tokens[counted]), sum(end - start for start, end in itertools.pairwise(ends))

    @torch.no_grad()
    def check(self) -> str:
        """Float32 logits of the first examples, before any training: ours, and transformers' on its own padding."""
        self.encoder.eval(), self.model.eval().to(workers.device())
        rows = np.arange(min(BATCH, len(self.data)))
        ours = self.encoder(collate(self.data, rows, self.task.name, self.pad_id).to(workers.device())).logits
        given = padded(self.data, rows, self.pad_id, self.padding)
        theirs = self.model(**{name: value.to(workers.device()) for name, value in given.items() if name != "labels"}).logits
        difference = float((theirs - ours).abs().max())
        if difference > TOLERANCE:
            raise ValueError(f"the two models differ by {difference:.1e} in their logits: expected at most {TOLERANCE:.0e}")
        return f"logits equal to {difference:.0e}"


def transformers_model(encoder: Encoder) -> torch.nn.Module:
    """transformers' own model with the weights of `encoder` (`cls` pooling), float32."""
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(Path(folder))
        return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)


def train_with_transformers(model: torch.nn.Module, examples: int, together: Callable[[list[int]], dict], callbacks=(),
                            **settings) -> None:
    """Train `model` with transformers' Trainer, float32 and its other defaults; `together` makes a batch of row numbers."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, per_device_train_batch_size=BATCH, learning_rate=LEARNING_RATE, save_strategy="no",
                                      logging_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False,
                                      dataloader_pin_memory=torch.cuda.is_available(), **settings)
        trainer = Trainer(model, arguments, train_dataset=range(examples), data_collator=together, callbacks=list(callbacks))
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def padded(data: EncodedDataset, rows: np.ndarray, pad_id: int, length: int) -> dict[str, torch.Tensor]:
    """What transformers' model reads: padded to `length`, or to the longest for 0."""
    batch = collate(data, rows, "", pad_id)
    more = max(length - batch.input_ids.shape[1], 0)
    pad = torch.nn.functional.pad
    return {"input_ids": pad(batch.input_ids, (0, more), value=pad_id),
            "attention_mask": pad(batch.attention_mask, (0, more)),
            "token_type_ids": pad(batch.token_type_ids, (0, more)), "labels": batch.target}
