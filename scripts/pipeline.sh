#!/bin/sh
# The main job for one task and one seed: teacher, senses, student, and controls: the constant answer, and the same
# truncated encoder without distillation, from its pre-trained layers and from the teacher's. Scores all and adds them to
# a table of records. Run again after an interruption: it goes on.
#     sh scripts/pipeline.sh TASK SEED TABLE
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                        # folder of the tasks
MODEL=${MODEL:-minilm}                      # the teacher, and where the control's layers come from
STUDENT=${STUDENT:-truncate:half}           # the layers of student and control: truncate:N or layers:0,2,4
RUNS=${RUNS:-./runs/pipeline}               # everything is written below $RUNS/seed-SEED/TASK
RECORDS=${RECORDS:-$RUNS/records.jsonl}     # where the scores are added
export PYTHON DATA MODEL STUDENT
unset RUN TEACHER SENSES TOKENIZER          # here every script reads what those before it made

if [ $# -ne 3 ]; then
    echo "usage: sh scripts/pipeline.sh TASK SEED TABLE" >&2
    "$PYTHON" -m distill data tasks >&2
    exit 2
fi
TASK=$("$PYTHON" -m distill data name "$1")
SEED=$2 TABLE=$3
export RUNS="$RUNS/seed-$SEED"
OUT=$RUNS/$TASK
say() { printf '\n== %s, seed %s: %s\n' "$TASK" "$SEED" "$1"; }
record() { "$PYTHON" -m distill report --records "$RECORDS" add "$TABLE" "$@"; }

say "fine-tune the teacher"
sh r1_teacher_model.sh "$TASK" --seed "$SEED"
say "build its sense dictionary"
sh r2_construct_sense_dictionary.sh "$TASK"
say "distil the student"
sh r3_knowledge_distillation.sh "$TASK" --seed "$SEED"
say "control: the same truncated encoder, fine-tuned without distillation"
"$PYTHON" -m distill train finetune "$TASK" --data_dir "$DATA" --model "$MODEL" --layers "$STUDENT" \
    --output_dir "$OUT/control" --seed "$SEED"
say "control: the teacher's layers, trained on the labels alone"
sh r3_knowledge_distillation.sh "$TASK" --seed "$SEED" --preset labels_alone --output_dir "$OUT/labels"
say "score"
sh run_eval_teacher.sh "$TASK" --output "$OUT/teacher.json"
STUDENT="$OUT/student" sh run_eval_student.sh "$TASK" --output "$OUT/student.json"
record "teacher" "$OUT/teacher"
record "teacher with senses" "$OUT/teacher" --scores "$OUT/teacher.json"
record "student" "$OUT/student"
record "control: labels alone, from the teacher's layers" "$OUT/labels"
record "control: fine-tuned, not distilled" "$OUT/control"
"$PYTHON" -m distill report --records "$RECORDS" constant "$TASK" "$TABLE" --data_dir "$DATA"
