#!/bin/sh
# TinyBERT on a task (Jiao et al. 2020): hidden states and attention first, then the answers.
#     sh scripts/tinybert.sh MRPC --intermediate_share 0.8
set -eu
cd "$(dirname "$0")/.."
export METHOD=tinybert
exec sh scripts/distil.sh "$@"
