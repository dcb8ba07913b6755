#!/bin/sh
# Distil the teacher that r1 made by any method: a file in distill/recipes/. What reads senses goes through r3.
#     METHOD=pkd sh scripts/distil.sh MRPC --layer_map last
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
METHOD=${METHOD:-logit_kd}                # logit_kd, pkd, tinybert, relation_kd, or a file of your own
DATA=${DATA:-./glue}                      # folder of the tasks
RUNS=${RUNS:-./runs}                      # reads $RUNS/TASK/teacher, writes $RUNS/TASK/METHOD
STUDENT=${STUDENT:-truncate:half}         # truncate:N or layers:0,2,4 of the teacher, or a hub id, folder or minilm

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: METHOD=$METHOD sh scripts/distil.sh TASK [settings]" >&2
    "$PYTHON" -m distill data tasks >&2
    exit 2
fi
TASK=$("$PYTHON" -m distill data name "$1")
shift
TEACHER=${TEACHER:-$RUNS/$TASK/teacher/best}
if [ ! -e "$TEACHER" ]; then
    echo "no teacher $TEACHER: train it with sh r1_teacher_model.sh $TASK, or set TEACHER" >&2
    exit 1
fi
exec "$PYTHON" -m distill train "$METHOD" "$TASK" --data_dir "$DATA" --teacher "$TEACHER" --student "$STUDENT" \
    --output_dir "$RUNS/$TASK/$METHOD" "$@"
