#!/bin/sh
# Set up .venv where there is none, then run the tests. Further words go to pytest: sh scripts/test.sh -m slow
set -eu
cd "$(dirname "$0")/.."
WORKERS=${WORKERS:-auto}                            # test processes: one for each core, 8 at most
sh scripts/setup.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"      # the tests' models are small: threads of theirs would only wait for each other
exec .venv/bin/python -m pytest -q -n "$WORKERS" --maxprocesses 8 --dist loadfile "$@"
