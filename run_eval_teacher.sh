#!/bin/sh
# Score a teacher on the dev set, plain and read through its senses. Own run or downloaded pytorch.model-*.bin:
#     TEACHER=ckpts/teacher-v3-large/MRPC/pytorch.model-000460.bin SENSES=sense_dict/MRPC.kmeanspkl sh run_eval_teacher.sh MRPC
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}        # folder of the tasks
RUNS=${RUNS:-./runs}        # where r1 and r2 wrote
TOKENIZER=${TOKENIZER:-}    # spm.model or its folder, for a downloaded .bin that lies without one

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: sh run_eval_teacher.sh TASK [settings]" >&2
    "$PYTHON" -m distill data tasks >&2
    exit 2
fi
TASK=$("$PYTHON" -m distill data name "$1")
shift
TEACHER=${TEACHER:-$RUNS/$TASK/teacher}     # run directory, checkpoint folder, or downloaded file
SENSES=${SENSES:-$RUNS/$TASK/senses}        # folder of r2, .safetensors or .kmeanspkl
if [ ! -e "$TEACHER" ]; then
    echo "no teacher $TEACHER: train it with sh r1_teacher_model.sh $TASK, or set TEACHER" >&2
    exit 1
fi
if [ ! -e "$SENSES" ]; then
    echo "no sense dictionary $SENSES: build it with sh r2_construct_sense_dictionary.sh $TASK, or set SENSES" >&2
    exit 1
fi
exec "$PYTHON" -m distill evaluate "$TASK" --data_dir "$DATA" --checkpoint "$TEACHER" --senses "$SENSES" \
    --reading continuous ${TOKENIZER:+--tokenizer "$TOKENIZER"} "$@"
