#!/bin/sh
# README's table of methods: the teacher, every method's student of half its layers, and the controls, over tasks and seeds.
# Days of one core; run again after an interruption to go on, with more SEEDS to add to it. Tasks may run side by side.
#     DATA=/path/to/glue TASKS=CoLA SEEDS='1 2 3' sh scripts/methods_table.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of the tasks
MODEL=${MODEL:-minilm}                              # the pre-trained encoder
TASKS=${TASKS:-CoLA MRPC STS-B}
SEEDS=${SEEDS:-1 2 3 4 5}
RUNS=${RUNS:-./runs/methods}                        # everything is written below: TASK/ROW/seed-N
RECORDS=${RECORDS:-./scripts/results.jsonl}
TABLE=${TABLE:-methods}

train() {  # RECIPE FOLDER ROW [settings]: train over the seeds, and record
    recipe=$1 folder=$2 row=$3
    shift 3
    "$PYTHON" -m distill train "$recipe" "$task" --data_dir "$DATA" --output_dir "$OUT/$folder" "$@" --seeds $SEEDS
    "$PYTHON" -m distill report --records "$RECORDS" add "$TABLE" "$row" "$OUT/$folder"
}
distil() {  # the same, from the teacher of each seed
    method=$1 place=$2 name=$3
    shift 3
    train "$method" "$place" "$name" --teacher "$OUT/teacher/seed-{seed}/best" "$@"
}

for task in $TASKS; do
    OUT=$RUNS/$task
    train finetune teacher "teacher" --model "$MODEL"
    for seed in $SEEDS; do
        teacher=$OUT/teacher/seed-$seed senses=$OUT/senses/seed-$seed read=$OUT/teacher-$seed.json
        "$PYTHON" -m distill senses build "$task" --data_dir "$DATA" --teacher "$teacher/best" --output_dir "$senses"
        [ "$read" -nt "$teacher/DONE" ] || "$PYTHON" -m distill evaluate "$task" --data_dir "$DATA" --checkpoint "$teacher" --senses "$senses" --output "$read"
        "$PYTHON" -m distill report --records "$RECORDS" add "$TABLE" "teacher with senses" "$teacher" --scores "$read"
    done
    SENSES="$OUT/senses/seed-{seed}"
    train finetune control "control: fine-tuned, not distilled" --model "$MODEL" --layers truncate:half
    distil logit_kd logit_kd "logit_kd"
    distil sense_kd sense_kd "sense_kd" --senses "$SENSES"
    distil relation_kd relation_kd "relation_kd"
    distil pkd pkd "pkd"
    distil tinybert tinybert "tinybert"
    distil tinybert tinybert_half "tinybert, intermediate_share 0.5" --intermediate_share 0.5
    train self_teaching self_teaching "self_teaching" --model "$MODEL" --schedule all,half
    distil sense_kd sense_dot "sense_kd, dot product" --senses "$SENSES" --similarity dot
    distil sense_kd sense_relation "sense_kd with relations" --senses "$SENSES" --relation_weight 1
    distil sense_kd sense_paper "sense_kd, preset paper" --senses "$SENSES" --preset paper
    distil sense_kd labels "control: labels alone, from the teacher's layers" --senses "$SENSES" --preset labels_alone
    train finetune fresh "control: fresh weights" --model "$MODEL" --layers truncate:half --random_init True
    "$PYTHON" -m distill report --records "$RECORDS" constant "$task" "$TABLE" --data_dir "$DATA"
done
