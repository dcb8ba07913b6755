#!/bin/sh
# Patient distillation (Sun et al. 2019): the teacher's [CLS] states of several layers, beside its answers.
#     sh scripts/pkd.sh MRPC --layer_map last
set -eu
cd "$(dirname "$0")/.."
export METHOD=pkd
exec sh scripts/distil.sh "$@"
