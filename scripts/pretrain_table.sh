#!/bin/sh
# A table of pre-training. MODEL learned masked words on the text and then taught: students of half its layers, pre-trained on the same
# text with and without it, from its layers and from fresh ones, then fine-tuned; beside the teacher, the encoder as it came, the layers
# of both and fresh ones without that pre-training, and a constant answer. Rows of students differ in what their names say alone: steps, rows,
# rate, decay, clipping, choice of masks, token types are one for all (minilmv2 reads unmasked text). Pre-training has one seed. Every row
# starts fine-tuning with a fresh head: `head` leaves the encoder's layers as they are, not its trained pooler. Run again after an
# interruption to go on. Hours of a core for each row; rows may run side by side (ROWS).
#     TEXT='/path/to/aclImdb/train /path/to/wiki.train.raw' DATA=/path/to/tasks STEPS=400 sh scripts/pretrain_table.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
TEXT=${TEXT:-./aclImdb/train}                       # what is pre-trained on; several, such as WikiText's files: with spaces between
DATA=${DATA:-./glue}                                # folder of the tasks, or of links to them: CoLA/ ... and aclImdb/
MODEL=${MODEL:-minilm}                              # the encoder; it gets a head for masked words, then learns them whole
LAYERS=${LAYERS:-uniform:half}                      # the student's
TASKS=${TASKS:-SST-2 MRPC CoLA STS-B IMDb}
SEEDS=${SEEDS:-1 2 3}                               # of fine-tuning
EPOCHS=${EPOCHS:-}                                  # of fine-tuning; empty: those of the preset for the encoder's width
LONG_TASKS=${LONG_TASKS:-SST-2 IMDb}                # the longest to fine-tune: these rows and seeds alone
LONG_ROWS=${LONG_ROWS:-teacher cut distilbert minilmv2 mlm distilbert_fresh constant}
LONG_SEEDS=${LONG_SEEDS:-1}
LONG_EPOCHS=${LONG_EPOCHS:-$EPOCHS}                  # of them; may be a part of one
STEPS=${STEPS:-400}                                 # of pre-training, for every row alike
HEAD_STEPS=${HEAD_STEPS:-300}                       # of the head alone
ADAPT_STEPS=${ADAPT_STEPS:-400}                     # of the whole encoder with it: then it teaches
ROWS_A_STEP=${ROWS_A_STEP:-64}                      # of text
LENGTH=${LENGTH:-128}                               # tokens of a row, and of an example: no position is read that saw no text
RATE=${RATE:-5e-4}
WARMUP=${WARMUP:-20}                                # steps
DECAY=${DECAY:-0.01}
CLIP=${CLIP:-1}                                     # the gradient's norm
SMOOTHING=${SMOOTHING:-0}                           # of the choice of masks by the count of words; 0: all alike
SOFT=${SOFT:-masked}                                # where soft targets are read: at masked tokens, or at all, which a CPU is slow at
RUNS=${RUNS:-./runs/pretraining}                    # everything is written below
RECORDS=${RECORDS:-./scripts/results.jsonl}
ROWS=${ROWS:-encoder teacher copied cut distilbert minilmv2 mlm distilbert_fresh mlm_fresh without_kl without_mlm without_cos fresh constant}

pretrain() {  # FOLDER [settings]: one schedule for every row
    folder=$1
    shift
    "$PYTHON" -m distill train pretrain text --corpus "$RUNS/corpus" --output_dir "$RUNS/$folder" --max_length "$LENGTH" \
        --train_batch_size "$ROWS_A_STEP" --learning_rate "$RATE" --weight_decay "$DECAY" --max_grad_norm "$CLIP" \
        --mlm_smoothing "$SMOOTHING" --token_types True "$@"
}
student() {  # FOLDER ROW [settings]: pre-train a student from the teacher's layers, or of their shape, and fine-tune it
    place=$1 name=$2
    shift 2
    pretrain "$place" --teacher "$RUNS/teacher/best" --student "$LAYERS" --max_steps "$STEPS" --warmup_steps "$WARMUP" --kl_on "$SOFT" "$@"
    record "$place" "$name"
    finetune "$place" "$name" "$RUNS/$place/best"
}
record() {  # FOLDER ROW: what pre-training itself reached on held-out text
    "$PYTHON" -m distill report --records "$RECORDS" add pretraining "$2" "$RUNS/$1"
}
finetune() {  # FOLDER ROW MODEL [settings]
    place=$1 name=$2 model=$3
    shift 3
    for task in $TASKS; do
        wanted || continue
        "$PYTHON" -m distill train finetune "$task" --data_dir "$DATA" --model "$model" --output_dir "$RUNS/$task/$place" \
            --max_length "$LENGTH" ${epochs:+--num_train_epochs "$epochs"} "$@" --seeds $seeds
        "$PYTHON" -m distill report --records "$RECORDS" add pretraining "$name" "$RUNS/$task/$place"
    done
}
constant() {
    for task in $TASKS; do
        wanted || continue
        "$PYTHON" -m distill report --records "$RECORDS" constant "$task" pretraining --data_dir "$DATA"
    done
}
wanted() {  # whether $row has $task, with which seeds, and for how long
    seeds=$SEEDS epochs=$EPOCHS
    case " $LONG_TASKS " in *" $task "*) seeds=$LONG_SEEDS epochs=$LONG_EPOCHS ;; *) return 0 ;; esac
    case " $LONG_ROWS " in *" $row "*) ;; *) return 1 ;; esac
}

# shellcheck disable=SC2086 # several sources, several seeds
"$PYTHON" -m distill data pack $TEXT --tokenizer "$MODEL" --output_dir "$RUNS/corpus"
pretrain head --preset head --student "$MODEL" --max_steps "$HEAD_STEPS"
pretrain teacher --preset mlm --student "$RUNS/head/best" --max_steps "$ADAPT_STEPS" --warmup_steps "$WARMUP"
for row in $ROWS; do
    case $row in
    encoder) record head "the encoder as it came"; finetune $row "the encoder as it came" "$RUNS/head/best" ;;
    teacher) record $row "teacher: the encoder after masked words"; finetune $row "teacher: the encoder after masked words" "$RUNS/teacher/best" ;;
    copied) finetune $row "control: the encoder's layers, no pre-training" "$RUNS/head/best" --layers "$LAYERS" ;;
    cut) finetune $row "control: the teacher's layers, no pre-training" "$RUNS/teacher/best" --layers "$LAYERS" ;;
    distilbert) student $row "distilbert" --preset distilbert ;;
    minilmv2) student $row "minilmv2" --preset minilmv2 ;;
    mlm) student $row "control: masked words alone" --preset mlm ;;
    distilbert_fresh) student $row "distilbert, fresh layers" --preset distilbert --random_init True ;;
    mlm_fresh) student $row "control: masked words alone, fresh layers" --preset mlm --random_init True ;;
    without_kl) student $row "distilbert without soft targets" --preset distilbert --kl_weight 0 ;;
    without_mlm) student $row "distilbert without masked words" --preset distilbert --mlm_weight 0 ;;
    without_cos) student $row "distilbert without the cosine loss" --preset distilbert --cos_weight 0 ;;
    fresh) finetune $row "control: fresh layers, no pre-training" "$RUNS/head/best" --layers "$LAYERS" --random_init True ;;
    constant) constant ;;
    *) echo "unknown row $row" >&2; exit 2 ;;
    esac
done
