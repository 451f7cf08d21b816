#!/bin/sh
# Compare results, speed and memory of the CPU and one GPU for every preset.
#
#     sh examples/gpu/check.sh [MODEL]     # the embedded weights without MODEL
#     sh examples/gpu/check.sh --try       # a small picture, the CPU with itself
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
export PYTHONPATH="${here%/examples/gpu}${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" "$here/check.py" "$@"
