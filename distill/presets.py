"""What the recipes' presets share.

SMALL   for encoders like minilm (22 M parameters), teachers and students alike: three epochs, and the rate that was held
        against twice and half of it (recipes/finetune.py); one epoch at half of it on the tasks of SMALL_TASKS that are long.
LARGE   for students of teachers of LARGE_WIDTH hidden units and more. Not tuned, no weights of such a teacher could be had:
        the rate is about what r1's large encoders need.
WITHOUT_DEV  tasks whose dev set goes round without its answers: a tenth of train selects.
"""

from data_utils.draws import HELD_OUT

WITHOUT_DEV = {"TyDiQA": {"select_on": HELD_OUT}}
SMALL = {"num_train_epochs": 3, "learning_rate": 1e-4}
SMALL_TASKS = {**WITHOUT_DEV, "SST-2": {"num_train_epochs": 1, "learning_rate": 5e-5}}
LARGE = {"num_train_epochs": 6, "learning_rate": 1e-5}
LARGE_WIDTH = 1024  # encoders this wide diverge at the rates that small ones need
