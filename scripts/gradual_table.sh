#!/bin/sh
# README's table of self-teaching: gradually (6-5-4-3) against directly (6-3), and directly for as many steps; with the
# teacher exit's own score, beside the whole model and its first half fine-tuned alone. Run again after an interruption to
# go on; after methods_table.sh, whose teachers, controls and self-taught students are these. Tasks may run side by side.
#     DATA=/path/to/glue sh scripts/gradual_table.sh      (SEEDS: all that methods_table.sh had)
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of the tasks
MODEL=${MODEL:-minilm}                              # the pre-trained encoder, of 6 layers
TASKS=${TASKS:-CoLA MRPC}
SEEDS=${SEEDS:-1 2 3 4 5}
RUNS=${RUNS:-./runs/methods}                        # everything is written below: TASK/ROW/seed-N
RECORDS=${RECORDS:-./scripts/results.jsonl}

train() {  # RECIPE FOLDER ROW [settings]: train over the seeds, and record
    recipe=$1 folder=$2 row=$3
    shift 3
    "$PYTHON" -m distill train "$recipe" "$task" --data_dir "$DATA" --model "$MODEL" --output_dir "$RUNS/$task/$folder" "$@" --seeds $SEEDS
    "$PYTHON" -m distill report --records "$RECORDS" add gradual "$row" "$RUNS/$task/$folder"
}

for task in $TASKS; do
    train finetune teacher "6 layers, fine-tuned"
    train finetune control "control: 3 layers, fine-tuned" --layers truncate:half
    train self_teaching self_teaching "6-3" --schedule all,half
    train self_teaching direct_long "6-3, as many steps as 6-5-4-3" --schedule 6,3 --preset long
    train self_teaching gradual "6-5-4-3" --schedule 6,5,4,3
    "$PYTHON" -m distill report --records "$RECORDS" constant "$task" gradual --data_dir "$DATA"
done
