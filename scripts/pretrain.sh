#!/bin/sh
# Pack plain text, and distil a masked language model on it. Edit the knobs here, or set them in the environment; words go to the
# training:
#     TEXT=/data/wiki.train.raw sh scripts/pretrain.sh --max_steps 1000
# What it makes, $RUNS/pretrain/$RUN/best, is a model like any other: MODEL=runs/pretrain/distilbert/best sh scripts/finetune.sh MRPC
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
TEXT=${TEXT:-./text}                                # a file, a folder, WikiText files or hub:NAME; several: with spaces between
TEACHER=${TEACHER:-google-bert/bert-base-uncased}   # a masked language model: hub id or folder; for head: any encoder
PRESET=${PRESET:-distilbert}                        # distilbert, minilmv2, tinybert_general, kdslm, tinydistil; mlm: no teacher; head: a head alone
RUNS=${RUNS:-./runs}                                # everything is written below
CORPUS=${CORPUS:-$RUNS/corpus}                      # the packed text; a finished one of the same TEXT is left as it is
RUN=${RUN:-$PRESET}
LAUNCH=${LAUNCH:-}                                  # what runs the training; on 8 GPUs: torchrun --nproc_per_node 8

case " $* " in *" -h "* | *" --help "*) exec "$PYTHON" -m distill train pretrain text --preset "$PRESET" --help ;; esac
# shellcheck disable=SC2086 # several sources
"$PYTHON" -m distill data pack $TEXT --tokenizer "$TEACHER" --output_dir "$CORPUS"
[ "$PRESET" != head ] || set -- --student "$TEACHER" "$@"   # it is the encoder itself that gets the head
set -- -m distill train pretrain text --corpus "$CORPUS" --teacher "$TEACHER" --preset "$PRESET" --output_dir "$RUNS/pretrain/$RUN" "$@"
[ -n "$LAUNCH" ] || exec "$PYTHON" "$@"
PATH=$PWD/.venv/bin:$PATH                           # where torchrun lies
# shellcheck disable=SC2086 # a command with its words
exec $LAUNCH "$@"
