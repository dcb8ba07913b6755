"""What the recipes' presets share.

SMALL   for encoders like minilm (22 M parameters), teachers and students alike: three epochs, and the rate that was held
        against twice and half of it (recipes/finetune.py); fewer epochs at half of it on the tasks of SMALL_TASKS, which are long
        (IMDb: as many as published for BERT-base's width; not tuned).
BASE    for encoders as wide as BERT-base and DistilBERT, fine-tuned or distilled on a task: the schedule of the student project
        TinyDistilBERT (Cornell, CS4782) for both, on answers in a text too.
        Differs: warm-up, decay, and selection by the task's metrics.
LARGE   for students of teachers of LARGE_WIDTH hidden units and more. Not tuned, no weights of such a teacher could be had:
        the rate is about what r1's large encoders need.
"""

from data_utils.tasks import TASKS

SMALL = {"num_train_epochs": 3, "learning_rate": 1e-4}
SMALL_TASKS = {"SST-2": {"num_train_epochs": 1, "learning_rate": 5e-5}, "IMDb": {"num_train_epochs": 2, "learning_rate": 5e-5}}
BASE = {"num_train_epochs": 3, "train_batch_size": 32, "learning_rate": 2e-5}
SPAN_TASKS = tuple(task.name for task in TASKS if task.spans)
BASE_TASKS = {"IMDb": {"num_train_epochs": 2, "train_batch_size": 16},
              **dict.fromkeys(SPAN_TASKS, {"learning_rate": 3e-5, "train_batch_size": 16})}
LARGE = {"num_train_epochs": 6, "learning_rate": 1e-5}
BASE_WIDTH = 768
LARGE_WIDTH = 1024  # encoders this wide diverge at the rates that small ones need


def preset_of(width: int, large: str = "large") -> str:
    """The preset for encoders of `width` hidden units: `large`, as the recipe calls it, "base", or "small" below both."""
    return large if width >= LARGE_WIDTH else "base" if width >= BASE_WIDTH else "small"
