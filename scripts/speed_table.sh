#!/bin/sh
# Measure everything in README's speed table on this machine (it should have nothing else to do). Under an hour on two cores.
#     DATA=/path/to/glue sh scripts/speed_table.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of the tasks
MODEL=${MODEL:-minilm}
TOKENS=${TOKENS:-200000}                            # of text, whose states are clustered
ROUNDS=${ROUNDS:-3}                                 # of each side; runs of each side, where whole runs are compared
RECORDS=${RECORDS:-./scripts/speed.jsonl}
SKIP_DEV_SCORE=${SKIP_DEV_SCORE:-}                   # not empty: leave out whole training runs, a third of the time

bench() {
    "$PYTHON" -m distill bench --data_dir "$DATA" --model "$MODEL" --tokens "$TOKENS" --rounds "$ROUNDS" --records "$RECORDS" "$@"
}

for part in training cache attention; do bench --task CoLA --parts "$part"; done  # a process each: none inherits memory
for part in training cluster collect; do bench --task SST-2 --parts "$part"; done
bench --task MRPC --parts lookup
[ -n "$SKIP_DEV_SCORE" ] || bench --task CoLA --parts dev_score
