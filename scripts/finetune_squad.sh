#!/bin/sh
# Extractive question answering: fine-tune MODEL on SQuAD, SQuAD2 or TyDiQA; with TEACHER, an encoder that was fine-tuned so before, distil it into
# MODEL as well (DistilBERT's second distillation). Edit the knobs here, or set them in the environment; further words go to the training:
#     MODEL=minilm sh scripts/finetune_squad.sh TyDiQA --seed 1
#     MODEL=runs/pretrain/distilbert/best TEACHER=runs/SQuAD/teacher/best sh scripts/finetune_squad.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}                             # folder of the tasks: $DATA/SQuAD/train-v1.1.json ...; absent: the hub
MODEL=${MODEL:-google-bert/bert-base-uncased}    # what is trained: hub id, folder (a pre-trained student), or minilm (offline)
TEACHER=${TEACHER:-}                             # checkpoint folder of a teacher with MODEL's vocabulary; empty: labels alone
RUNS=${RUNS:-./runs}                             # everything is written below
RUN=${RUN:-$([ -n "$TEACHER" ] && echo second_distillation || echo teacher)}      # the run is $RUNS/TASK/$RUN

case ${1:---} in
    -h | --help) echo "usage: sh scripts/finetune_squad.sh [SQuAD|SQuAD2|TyDiQA] [settings]" >&2; exit 2 ;;
    -*) TASK=SQuAD ;;
    *) TASK=$("$PYTHON" -m distill data name "$1"); shift ;;
esac
if [ -z "$TEACHER" ]; then
    exec "$PYTHON" -m distill train finetune "$TASK" --data_dir "$DATA" --model "$MODEL" --output_dir "$RUNS/$TASK/$RUN" "$@"
fi
if [ ! -d "$TEACHER" ]; then
    echo "no teacher $TEACHER: train one with MODEL=... sh scripts/finetune_squad.sh $TASK, or leave TEACHER empty" >&2
    exit 1
fi
exec "$PYTHON" -m distill train logit_kd "$TASK" --data_dir "$DATA" --teacher "$TEACHER" --student "$MODEL" \
    --output_dir "$RUNS/$TASK/$RUN" "$@"
