#!/bin/sh
# Score a student on the dev set. Own run or downloaded *.ckpt, which needs its dictionary and the teacher's spm.model:
#     STUDENT=ckpts/SKD/MRPC.ckpt SENSES=sense_dict/MRPC.kmeanspkl TOKENIZER=ckpts/teacher-v3-large/MRPC sh run_eval_student.sh MRPC
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}        # folder of the tasks
RUNS=${RUNS:-./runs}        # where r2 and r3 wrote
TOKENIZER=${TOKENIZER:-}    # spm.model or its folder, for a downloaded .ckpt

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: sh run_eval_student.sh TASK [settings]" >&2
    "$PYTHON" -m distill data tasks >&2
    exit 2
fi
TASK=$("$PYTHON" -m distill data name "$1")
shift
STUDENT=${STUDENT:-$RUNS/$TASK/student}     # run directory, checkpoint folder, or downloaded file
SENSES=${SENSES:-$RUNS/$TASK/senses}        # folder of r2, .safetensors or .kmeanspkl
if [ ! -e "$STUDENT" ]; then
    echo "no student $STUDENT: distil it with sh r3_knowledge_distillation.sh $TASK, or set STUDENT" >&2
    exit 1
fi
if [ ! -e "$SENSES" ]; then
    echo "no sense dictionary $SENSES: build it with sh r2_construct_sense_dictionary.sh $TASK, or set SENSES" >&2
    exit 1
fi
exec "$PYTHON" -m distill evaluate "$TASK" --data_dir "$DATA" --checkpoint "$STUDENT" --senses "$SENSES" \
    ${TOKENIZER:+--tokenizer "$TOKENIZER"} "$@"
