#!/bin/sh
# Fine-tune a teacher on a task. Edit the paths here, or set them in the environment; further words go to the program:
#     MODEL=minilm sh r1_teacher_model.sh MRPC --num_train_epochs 3
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                             # folder of the tasks: $DATA/MRPC/train.tsv ...; absent: the hub
MODEL=${MODEL:-microsoft/deberta-v3-large}       # hub id, folder, or minilm (offline, 22 M parameters)
RUNS=${RUNS:-./runs}                             # everything is written below
RUN=${RUN:-teacher}                              # the run is $RUNS/TASK/$RUN; r2 and r3 read teacher

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: sh r1_teacher_model.sh TASK [settings]" >&2
    "$PYTHON" -m distill data tasks >&2
    exit 2
fi
TASK=$("$PYTHON" -m distill data name "$1")
shift
exec "$PYTHON" -m distill train finetune "$TASK" --data_dir "$DATA" --model "$MODEL" \
    --output_dir "$RUNS/$TASK/$RUN" "$@"
