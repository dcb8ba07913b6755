#!/bin/sh
# README's table of self-teaching: gradually (6-5-4-3) against directly (6-3), and directly for as many steps; with the
# teacher exit's own score. Run again after an interruption to go on. Tasks may run side by side.
#     DATA=/path/to/glue SEEDS='1 2 3' sh scripts/gradual_table.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of the tasks
MODEL=${MODEL:-minilm}                              # the pre-trained encoder, of 6 layers
TASKS=${TASKS:-CoLA MRPC}
SEEDS=${SEEDS:-1 2 3 4 5}
RUNS=${RUNS:-./runs/gradual}                        # everything is written below: TASK/ROW/seed-N
RECORDS=${RECORDS:-./scripts/results.jsonl}

teach() {  # FOLDER ROW SCHEDULE [settings]
    folder=$1 row=$2 schedule=$3
    shift 3
    "$PYTHON" -m distill train self_teaching "$task" --data_dir "$DATA" --model "$MODEL" --schedule "$schedule" \
        --output_dir "$RUNS/$task/$folder" "$@" --seeds $SEEDS
    "$PYTHON" -m distill report --records "$RECORDS" add gradual "$row" "$RUNS/$task/$folder"
}

for task in $TASKS; do
    teach direct "6-3" 6,3
    teach direct_long "6-3, as many steps as 6-5-4-3" 6,3 --preset long
    teach gradual "6-5-4-3" 6,5,4,3
done
