#!/bin/sh
# Fine-tune a model whose last layer teaches an earlier one, and cut out the student. Edit the knobs here, or set them in the
# environment; further words go to the training:
#     MODEL=minilm sh scripts/self_teaching.sh MRPC --seed 1
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of the tasks: $DATA/MRPC/train.tsv ...; absent: the hub
MODEL=${MODEL:-google-bert/bert-base-uncased}       # hub id, folder, or minilm (offline, 6 layers)
SCHEDULE=${SCHEDULE:-all,half}                      # after which layers teacher and student answer; 12,8 for two thirds
RUNS=${RUNS:-./runs}                                # everything is written below
RUN=${RUN:-self_taught}                             # the run is $RUNS/TASK/$RUN
SCRIPT=${SCRIPT:-scripts/self_teaching.sh}          # as the usage calls it

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: sh $SCRIPT TASK [settings]" >&2
    "$PYTHON" -m distill data tasks >&2
    exit 2
fi
TASK=$("$PYTHON" -m distill data name "$1")
shift
exec "$PYTHON" -m distill train self_teaching "$TASK" --data_dir "$DATA" --model "$MODEL" --schedule "$SCHEDULE" \
    --output_dir "$RUNS/$TASK/$RUN" "$@"
