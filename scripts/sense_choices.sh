#!/bin/sh
# The choices of sense distillation, measured: pooling x what the head reads x loss, one teacher per pooling, over tasks
# and seeds of the student. Takes hours on a CPU; run again after an interruption to go on.
#     DATA=/path/to/glue sh scripts/sense_choices.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of the tasks
MODEL=${MODEL:-minilm}
TASKS=${TASKS:-MRPC CoLA STS-B}
SEEDS=${SEEDS:-1 2 3}
POOLINGS=${POOLINGS:-cls first_token mean}
RUNS=${RUNS:-./runs/choices}                        # everything is written below
RECORDS=${RECORDS:-./scripts/results.jsonl}

distill() { "$PYTHON" -m distill "$@"; }
record() { distill report --records "$RECORDS" add choices "$@"; }

for task in $TASKS; do
    for pooling in $POOLINGS; do
        out=$RUNS/$task/$pooling
        distill train finetune "$task" --data_dir "$DATA" --model "$MODEL" --pooling "$pooling" --output_dir "$out/teacher"
        distill senses build "$task" --data_dir "$DATA" --teacher "$out/teacher/best" --output_dir "$out/senses" --similarity dot
        record "teacher, $pooling" "$out/teacher"
        for similarity in dot distance; do
            distill evaluate "$task" --data_dir "$DATA" --checkpoint "$out/teacher" --senses "$out/senses" --similarity "$similarity" \
                --output "$out/teacher-$similarity.json"
            record "teacher, $pooling, read through senses by $similarity" "$out/teacher" --scores "$out/teacher-$similarity.json"
        done
        student() {  # student NAME SEED settings...
            name=$1 seed=$2
            shift 2
            distill train sense_kd "$task" --data_dir "$DATA" --teacher "$out/teacher/best" --senses "$out/senses" \
                --cache_dir "$out/cache" --seed "$seed" --output_dir "$out/$name-$seed" "$@"
        }
        for seed in $SEEDS; do
            # With the sense loss alone the head is not trained: what it reads is a question for the evaluation only.
            student sense "$seed" --preset sense_alone
            distill evaluate "$task" --data_dir "$DATA" --checkpoint "$out/sense-$seed" --senses "$out/senses" \
                --output "$out/sense-$seed.json"
            record "$pooling, continuous, sense" "$out/sense-$seed"
            record "$pooling, senses, sense" "$out/sense-$seed" --scores "$out/sense-$seed.json"
            for reads in continuous senses; do
                student "$reads" "$seed" --head_input "$reads"
                record "$pooling, $reads, sense + ce + kl" "$out/$reads-$seed"
            done
        done
    done
done
exec "$PYTHON" -m distill report --records "$RECORDS" table choices
