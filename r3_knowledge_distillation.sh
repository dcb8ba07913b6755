#!/bin/sh
# Distil the teacher into a student that picks the teacher's senses, then score it. Edit the paths here, or set them.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                      # folder of the tasks
RUNS=${RUNS:-./runs}                      # reads $RUNS/TASK/teacher and senses, writes $RUNS/TASK/student
STUDENT=${STUDENT:-truncate:half}         # truncate:N or layers:0,2,4 of the teacher, or a hub id, folder or minilm

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: sh r3_knowledge_distillation.sh TASK [settings]" >&2
    "$PYTHON" -m distill data tasks >&2
    exit 2
fi
TASK=$("$PYTHON" -m distill data name "$1")
shift
TEACHER=${TEACHER:-$RUNS/$TASK/teacher/best}
SENSES=${SENSES:-$RUNS/$TASK/senses}
if [ ! -e "$TEACHER" ]; then
    echo "no teacher $TEACHER: train it with sh r1_teacher_model.sh $TASK, or set TEACHER" >&2
    exit 1
fi
if [ ! -e "$SENSES" ]; then
    echo "no sense dictionary $SENSES: build it with sh r2_construct_sense_dictionary.sh $TASK, or set SENSES" >&2
    exit 1
fi
exec "$PYTHON" -m distill train sense_kd "$TASK" --data_dir "$DATA" --teacher "$TEACHER" --senses "$SENSES" \
    --student "$STUDENT" --output_dir "$RUNS/$TASK/student" "$@"
