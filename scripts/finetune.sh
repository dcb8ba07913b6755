#!/bin/sh
# Fine-tune an encoder that was distilled in pre-training, or any other, on a task: r1, with a model and a run of its own.
# Edit the knobs here, or set them in the environment; further words go to the training:
#     MODEL=runs/pretrain/distilbert/best RUN=student sh scripts/finetune.sh SST-2 --seeds 1 2 3
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                     # folder of the tasks: $DATA/MRPC/train.tsv, $DATA/aclImdb/train ...
MODEL=${MODEL:-distilbert/distilbert-base-uncased}       # folder (a pre-trained student's best/), hub id, or minilm (offline)
RUNS=${RUNS:-./runs}                                     # everything is written below
RUN=${RUN:-finetuned}                                    # the run is $RUNS/TASK/$RUN
export PYTHON DATA MODEL RUNS RUN

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: sh scripts/finetune.sh TASK [settings]" >&2
    "$PYTHON" -m distill data tasks >&2
    exit 2
fi
exec sh r1_teacher_model.sh "$@"
