#!/bin/sh
# Knowledge distillation on logits (Hinton et al. 2015): the labels, and the teacher's soft targets.
#     sh scripts/logit_kd.sh MRPC --temperature 4
set -eu
cd "$(dirname "$0")/.."
export METHOD=logit_kd
exec sh scripts/distil.sh "$@"
