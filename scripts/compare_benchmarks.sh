#!/bin/sh
# One table and one figure of finished runs, such as a teacher, its student and controls, beside one constant answer: scores over
# seeds, size, inference time on this machine, and what is kept of the teacher. Writes comparison.md, .csv, .png and .svg, beside
# further plots. Edit the knobs here, or set them in the environment; further words go to `report folder`:
#     OUT=runs/comparison sh scripts/compare_benchmarks.sh runs/SST-2/teacher runs/SST-2/finetuned runs/SST-2/control
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-./glue}               # folder of the tasks: their texts are timed, train gives the constant answer
TEACHER=${TEACHER:-teacher}        # the row that the others are held against: the run's folder without its seed and task
OUT=${OUT:-./runs/comparison}      # everything is written here

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: sh scripts/compare_benchmarks.sh FOLDER [FOLDER ...] [settings]" >&2
    echo "a folder: a run, its seeds, or what holds several of them" >&2
    exit 2
fi
mkdir -p "$OUT"
exec "$PYTHON" -m distill report folder --teacher "$TEACHER" --time --constant --data_dir "$DATA" --markdown "$OUT/comparison.md" \
    --csv "$OUT/comparison.csv" --plots "$OUT" "$@"
