#!/bin/sh
# MPDistil: teacher, student, meta-teacher, and a curriculum over tasks that a policy learns. Edit the knobs here, or set them in
# the environment; further words go to the training:
#     MODEL=minilm TASKS=WiC,WSC sh scripts/mpdistil.sh COPA --use_comp_loss True --reward_function real
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of all tasks: $DATA/COPA/train.jsonl, $DATA/MRPC/train.tsv ...
MODEL=${MODEL:-google-bert/bert-base-uncased}       # the teacher before fine-tuning: hub id, folder, or minilm (offline)
TASKS=${TASKS:-found}                               # the other tasks of the curriculum, joined by commas; found: the published ones in $DATA
STUDENT=${STUDENT:-truncate:half}                   # truncate:N or layers:0,2,4 of the teacher
RUNS=${RUNS:-./runs}                                # everything is written below
RUN=${RUN:-mpdistil}                                # the run is $RUNS/TASK/$RUN

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: sh scripts/mpdistil.sh TASK [settings]" >&2
    "$PYTHON" -m distill data tasks >&2
    exit 2
fi
TASK=$("$PYTHON" -m distill data name "$1")
shift
exec "$PYTHON" -m distill train mpdistil "$TASK" --data_dir "$DATA" --model "$MODEL" --tasks "$TASKS" --student "$STUDENT" \
    --output_dir "$RUNS/$TASK/$RUN" "$@"
