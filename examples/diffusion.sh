#!/bin/sh
# What the diffusion is worth: PSNR, LPIPS and seconds with the prior left out, and with 1, 4 and 16 of its steps.
#
#     sh examples/diffusion.sh DATA WEIGHTS OUT [PROCESSES]
#
# As examples/degraded.sh; WEIGHTS holds LPIPS. `def-hub card` reads the result from `made-by/diffusion/` of a model.
set -eu
data=$1 weights=$2 out=$3 processes=${4:-1}
export ACCELERATE_USE_CPU="${ACCELERATE_USE_CPU:-true}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
methods=
for preset in balanced detail; do
    for steps in 0 1 4 16; do methods="$methods --method def:$preset,num_inference_steps=$steps"; done
done
# shellcheck disable=SC2086 # methods and DEF_EVALUATE are several words
exec torchrun --standalone --nproc_per_node "$processes" "$(command -v def-hub)" evaluate "$data/MultiView" \
    --degradation clean jpeg70 phone --method bicubic $methods --references none first \
    --lpips "$weights/lpips_squeeze_v0.1.safetensors" --output "$out" --resume ${DEF_EVALUATE:-}
