#!/bin/sh
# Self-teaching in stages: each student is the next stage's teacher. Edit the knobs here, or set them in the environment;
# further words go to the training:
#     MODEL=minilm SCHEDULE=6,5,4,3 sh scripts/self_teaching_gradual.sh MRPC
set -eu
cd "$(dirname "$0")/.."
MODEL=${MODEL:-google-bert/bert-large-uncased}      # hub id, folder, or minilm (offline, 6 layers)
SCHEDULE=${SCHEDULE:-24,20,16,12}                   # three stages: 24 layers teach 20, those 16, those 12
RUN=${RUN:-self_taught_gradually}                   # the run is $RUNS/TASK/$RUN, the stages before the last are in it
SCRIPT=scripts/self_teaching_gradual.sh
export MODEL SCHEDULE RUN SCRIPT
exec sh scripts/self_teaching.sh "$@"
