#!/bin/sh
# Set up .venv where there is none, then run the tests. Further words go to pytest: sh scripts/test.sh -m slow
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh
exec .venv/bin/python -m pytest -q "$@"
