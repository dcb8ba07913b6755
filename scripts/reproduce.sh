#!/bin/sh
# Make one number of a table again: run the command of its record into a new folder, and compare. IDs of the records:
# python -m distill report ids [TABLE]. Run again after an interruption: it goes on.
#     DATA=/path/to/glue sh scripts/reproduce.sh 0123abcd
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of the tasks
MODEL=${MODEL:-}                                    # where the recorded path is not here: the pre-trained model,
TEACHER=${TEACHER:-}                                # the teacher's checkpoint, a folder best/,
SENSES=${SENSES:-}                                  # its sense dictionary,
STUDENT=${STUDENT:-}                                # what the student starts from,
CORPUS=${CORPUS:-}                                  # the text as it was packed
RUNS=${RUNS:-./runs/reproduce}                      # everything is written below $RUNS/ID
RECORDS=${RECORDS:-./scripts/results.jsonl}

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: sh scripts/reproduce.sh ID" >&2
    echo "IDs: $PYTHON -m distill report --records $RECORDS ids" >&2
    exit 2
fi
ID=$1
shift
exec "$PYTHON" -m distill report --records "$RECORDS" reproduce "$ID" --data_dir "$DATA" --model "$MODEL" --teacher "$TEACHER" \
    --senses "$SENSES" --student "$STUDENT" --corpus "$CORPUS" --output_dir "$RUNS/$ID" "$@"
