#!/bin/sh
# Measure everything in README's speed table on this machine (it should have nothing else to do). Hours on two cores.
#     DATA=/path/to/glue sh scripts/speed_table.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of the tasks
MODEL=${MODEL:-minilm}
TOKENS=${TOKENS:-200000}                            # of text, whose states are clustered
ROUNDS=${ROUNDS:-3}                                 # of each side; runs of each side, where whole runs are compared
RECORDS=${RECORDS:-./scripts/speed.jsonl}
SKIP_DEV_SCORE=${SKIP_DEV_SCORE:-}                  # not empty: leave out whole training runs, which are long
SKIP_WORDS=${SKIP_WORDS:-}                          # not empty: leave out losses over vocabularies: longest, and 14 GiB

failed=0
bench() {  # one that refuses a comparison has said so: the others are measured all the same
    "$PYTHON" -m distill bench --data_dir "$DATA" --model "$MODEL" --tokens "$TOKENS" --rounds "$ROUNDS" --records "$RECORDS" "$@" || failed=1
}

for part in training cache attention packing; do bench --task CoLA --parts "$part"; done  # a process each: none inherits memory
for part in training cluster collect; do bench --task SST-2 --parts "$part"; done
bench --task MRPC --parts lookup
[ -n "$SKIP_DEV_SCORE" ] || bench --task CoLA --parts dev_score
[ -n "$SKIP_WORDS" ] || bench --parts words
exit "$failed"
