#!/bin/sh
# Degraded pictures: the gain over bicubic enlargement of the same degraded file, with and without a reference.
#
#     sh examples/degraded.sh DATA OUT [PROCESSES]
#
# DATA holds MultiView, or any other set of pictures with references. OUT gets rows.csv and settings.json, which
# `def-hub card` reads from `made-by/degraded/` of a model. Stopped, it goes on when it is called again.
set -eu
data=$1 out=$2 processes=${3:-1}
export ACCELERATE_USE_CPU="${ACCELERATE_USE_CPU:-true}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# shellcheck disable=SC2086 # DEF_EVALUATE is several words
exec torchrun --standalone --nproc_per_node "$processes" "$(command -v def-hub)" evaluate "$data/MultiView" \
    --degradation clean jpeg90 jpeg70 jpeg40 noise5 noise15 blur3 nearest box lanczos phone \
    --method bicubic --method def:balanced --references none first --output "$out" --resume ${DEF_EVALUATE:-}
