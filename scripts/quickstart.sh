#!/bin/sh
# The main job, whole, from nothing: set up .venv, then teacher, sense dictionary, student, control, and their table.
#     sh scripts/quickstart.sh            the embedded task `demo`
#     sh scripts/quickstart.sh MRPC       a GLUE task that lies in $DATA
set -eu
cd "$(dirname "$0")/.."
RUNS=${RUNS:-./runs/quickstart}    # everything is written below; run again after an interruption to go on
RECORDS=${RECORDS:-$RUNS/records.jsonl}
export RUNS RECORDS

sh scripts/setup.sh
unset PYTHON                       # it made .venv, which has what is needed
sh scripts/pipeline.sh "${1:-demo}" 42 quickstart
printf '\nDev set, percent (number of seeds):\n'
exec .venv/bin/python -m distill report --records "$RECORDS" table quickstart
