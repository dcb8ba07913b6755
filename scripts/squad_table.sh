#!/bin/sh
# A table of extractive question answering: MODEL fine-tuned on TASK, the teacher; a part of its layers fine-tuned alike, the control, and with
# the teacher's starts and ends as well, the second distillation. They answer the dev questions of JUDGE, of which none was trained on and
# none selected. Run again after an interruption to go on.
#     DATA=/path/to/tasks SEEDS='1 2 3' sh scripts/squad_table.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of both tasks
MODEL=${MODEL:-minilm}                              # the pre-trained encoder
LAYERS=${LAYERS:-uniform:half}                      # those of it that both students start from
TASK=${TASK:-TyDiQA}
JUDGE=${JUDGE:-SQuAD}
EPOCHS=${EPOCHS:-}                                  # empty: those of the preset for the encoder's width
SEEDS=${SEEDS:-1 2 3}
RUNS=${RUNS:-./runs/squad}                          # everything is written below: TASK/ROW/seed-N
RECORDS=${RECORDS:-./scripts/results.jsonl}

row() {  # RECIPE FOLDER ROW [settings]: train over the seeds, answer, and record
    recipe=$1 out=$RUNS/$TASK/$2 name=$3
    shift 3
    # shellcheck disable=SC2086 # several seeds
    "$PYTHON" -m distill train "$recipe" "$TASK" --data_dir "$DATA" --output_dir "$out" --select_on heldout \
        ${EPOCHS:+--num_train_epochs "$EPOCHS"} "$@" --seeds $SEEDS
    for seed in $SEEDS; do
        answered=$out/seed-$seed/$JUDGE.json
        [ "$answered" -nt "$out/seed-$seed/DONE" ] || "$PYTHON" -m distill evaluate "$JUDGE" --data_dir "$DATA" --checkpoint "$out/seed-$seed" --output "$answered"
        "$PYTHON" -m distill report --records "$RECORDS" add squad "$name" "$out/seed-$seed" --scores "$answered" --reading "continuous states"
    done
}

row finetune teacher "teacher" --model "$MODEL"
row finetune control "control: half of the layers, fine-tuned" --model "$MODEL" --layers "$LAYERS"
row logit_kd second_distillation "the same layers, second distillation" --teacher "$RUNS/$TASK/teacher/seed-{seed}/best" \
    --student "$MODEL" --student_layers "$LAYERS"
