#!/bin/sh
# README's table: the main job over tasks and seeds. Takes hours on a CPU; run again after an interruption to go on.
#     DATA=/path/to/glue sh scripts/main_table.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
TASKS=${TASKS:-MRPC CoLA STS-B}
SEEDS=${SEEDS:-1 2 3}
RUNS=${RUNS:-./runs/main}                           # everything is written below
RECORDS=${RECORDS:-./scripts/results.jsonl}
export PYTHON RUNS RECORDS

for task in $TASKS; do
    for seed in $SEEDS; do
        sh scripts/pipeline.sh "$task" "$seed" main
    done
done
exec "$PYTHON" -m distill report --records "$RECORDS" render README.md
