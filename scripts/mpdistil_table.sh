#!/bin/sh
# README's table of MPDistil: its teacher, student and meta-teacher, the four variants, the ablations, and the controls, over tasks
# and seeds; the variants of a seed share their first fits. Two variants are one: of real rewards the meta-teacher's part is taken off again
# (curriculum.py). All tasks are one action space. Run again after an interruption to go on; the heldout tenth selects everywhere.
# Tasks may run side by side.
#     DATA=/folder/of/all/tasks TASKS='COPA WSC' SEEDS='1 2 3' sh scripts/mpdistil_table.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                                # folder of all tasks of the action space
MODEL=${MODEL:-minilm}                              # the pre-trained encoder
SPACE=${SPACE:-COPA WiC WSC BoolQ MultiRC MRPC CoLA STS-B}      # the action space
TASKS=${TASKS:-$SPACE}                              # the main tasks, one after the other
SEEDS=${SEEDS:-1 2 3 4 5}
LENGTH=${LENGTH:-128}                               # tokens of an example, as published; 0: each task's own
EPOCHS=${EPOCHS:-3}                                 # passes over the task, of the teacher and of every student
EPISODES=${EPISODES:-60}                            # after each the policy learns
EPISODE_STEPS=${EPISODE_STEPS:-4}                   # of an episode at most: a pass over a large task's quiz would be many
EVAL_EPISODES=${EVAL_EPISODES:-10}                  # its student is scored after every so many
POLICY_RATE=${POLICY_RATE:-3e-2}                    # its learning rate: the product with EPISODES is about what its logits can move
QUIZ_BATCH=${QUIZ_BATCH:-8}                         # examples of a batch of the curriculum; 2 where a quiz has fewer than 9
RUNS=${RUNS:-./runs/mpdistil}                       # everything is written below: TASK/ROW/seed-N
RECORDS=${RECORDS:-./scripts/results.jsonl}

report() {
    "$PYTHON" -m distill report --records "$RECORDS" "$@"
}
train() {  # RECIPE FOLDER ROW [settings]: train over the seeds, and record
    recipe=$1 folder=$2 row=$3
    shift 3
    "$PYTHON" -m distill train "$recipe" "$task" --data_dir "$DATA" --output_dir "$OUT/$folder" --select_on heldout \
        --max_length "$LENGTH" --num_train_epochs "$EPOCHS" "$@" --seeds $SEEDS
    report add mpdistil "$row" "$OUT/$folder"
}
study() {  # FOLDER ROW [settings]: the whole of MPDistil
    place=$1 name=$2
    shift 2
    train mpdistil "$place" "$name" --model "$MODEL" --teacher_epochs "$EPOCHS" --tasks "$others" --num_episodes "$EPISODES" \
        --eval_episodes "$EVAL_EPISODES" --episode_steps "$EPISODE_STEPS" --episode_batch_size "$QUIZ_BATCH" --policy_learning_rate "$POLICY_RATE" \
        --stages_dir "$OUT/stages/seed-{seed}" "$@"
}

for task in $TASKS; do
    OUT=$RUNS/$task
    others=$(echo "$SPACE" | tr ' ' '\n' | grep -vx "$task" | paste -sd, -)
    study col_bin "MPDistil, collaborative, binary reward"
    study com_bin "MPDistil, competitive, binary reward" --use_comp_loss True
    study real "MPDistil, real reward, collaborative and competitive alike" --reward_function real
    study no_curriculum "ablation: the main task alone" --policy main
    study random "ablation: tasks evenly" --policy random
    study no_competition "ablation: no competition" --compete False
    for seed in $SEEDS; do
        report add mpdistil "teacher" "$OUT/stages/seed-$seed/stage-teacher"
        report add mpdistil "student" "$OUT/stages/seed-$seed/stage-student"
        report add mpdistil "meta-teacher, collaborative" "$OUT/stages/seed-$seed/stage-meta"
        report add mpdistil "meta-teacher, competitive" "$OUT/stages/seed-$seed/stage-meta-competing"
    done
    train logit_kd logit_kd "logit_kd, from the same teacher" --teacher "$OUT/stages/seed-{seed}/stage-teacher/best"
    train finetune control "control: fine-tuned, not distilled" --model "$MODEL" --layers truncate:half
    report constant "$task" mpdistil --data_dir "$DATA"
done
