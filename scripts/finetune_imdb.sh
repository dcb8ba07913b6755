#!/bin/sh
# Fine-tune an encoder on IMDb's reviews. A tenth of train selects the epoch, the test set is reported. Edit the knobs here, or
# set them in the environment; further words go to the training:
#     DATA=/folder/that/holds/aclImdb MODEL=runs/pretrain/distilbert/best RUN=student sh scripts/finetune_imdb.sh --seed 1
set -eu
cd "$(dirname "$0")/.."
DATA=${DATA:-./glue}                                     # folder that holds aclImdb/ as it is unpacked; without it: the hub
MODEL=${MODEL:-distilbert/distilbert-base-uncased}       # folder (a pre-trained student's best/), hub id, or minilm (offline)
RUNS=${RUNS:-./runs}                                     # everything is written below
RUN=${RUN:-finetuned}                                    # the run is $RUNS/IMDb/$RUN
export DATA MODEL RUNS RUN
exec sh scripts/finetune.sh IMDb "$@"
