#!/bin/sh
# Cluster the teacher's hidden states into a sense dictionary. Edit the paths here, or set them in the environment.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}        # folder of the tasks
RUNS=${RUNS:-./runs}        # reads $RUNS/TASK/teacher, writes $RUNS/TASK/senses
CORPUS=${CORPUS:-task}      # whose tokens get senses: task, glue (every train set there), or a text or JSON file

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: sh r2_construct_sense_dictionary.sh TASK [settings]" >&2
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
exec "$PYTHON" -m distill senses build "$TASK" --data_dir "$DATA" --teacher "$TEACHER" --corpus "$CORPUS" \
    --output_dir "$RUNS/$TASK/senses" "$@"
