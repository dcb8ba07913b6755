#!/bin/sh
# MiniLMv2's relations among queries, keys and values (Wang et al. 2021), on a task; any width and number of heads.
#     sh scripts/relation_kd.sh MRPC --relation_heads 12
set -eu
cd "$(dirname "$0")/.."
export METHOD=relation_kd
exec sh scripts/distil.sh "$@"
