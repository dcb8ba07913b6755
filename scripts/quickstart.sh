#!/bin/sh
# The main job, whole: teacher, sense dictionary, student and a control without distillation, then their table.
#     sh scripts/quickstart.sh            the embedded task `demo`
#     sh scripts/quickstart.sh MRPC       a GLUE task that lies in $DATA
set -eu
cd "$(dirname "$0")/.."
DATA=${DATA:-./glue}               # folder of the tasks; `demo` is written there
MODEL=${MODEL:-minilm}             # the offline encoder; its first half becomes student and control
RUNS=${RUNS:-./runs/quickstart}    # everything is written below; run again after an interruption to go on
SEED=${SEED:-42}

sh scripts/setup.sh
PYTHON=.venv/bin/python
export PYTHON DATA MODEL RUNS
TASK=$("$PYTHON" -m distill data name "${1:-demo}")
OUT=$RUNS/$TASK
say() { printf '\n== %s\n' "$1"; }

say "1/5 fine-tune the teacher"
sh r1_teacher_model.sh "$TASK" --seed "$SEED"
say "2/5 build its sense dictionary"
sh r2_construct_sense_dictionary.sh "$TASK"
say "3/5 distil the student"
sh r3_knowledge_distillation.sh "$TASK" --seed "$SEED"
say "4/5 the control: the same truncated encoder, fine-tuned without distillation"
"$PYTHON" -m distill train finetune "$TASK" --data_dir "$DATA" --model "$MODEL" --layers truncate:half \
    --output_dir "$OUT/control" --seed "$SEED"
say "5/5 score"
sh run_eval_teacher.sh "$TASK" --output "$OUT/teacher.json"
sh run_eval_student.sh "$TASK" --output "$OUT/student.json"

record() { "$PYTHON" -m distill report --records "$OUT/records.jsonl" add quickstart "$@"; }
record teacher "$OUT/teacher"
record "teacher with senses" "$OUT/teacher" --scores "$OUT/teacher.json"
record student "$OUT/student"
record "control (no distillation)" "$OUT/control"
printf '\n'
exec "$PYTHON" -m distill report --records "$OUT/records.jsonl" table quickstart
