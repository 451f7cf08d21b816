#!/bin/sh
# The development table: every method on every development set.
#
#     sh examples/development.sh DATA WEIGHTS OUT [PROCESSES]
#
# DATA holds Set5, Set14, Urban100, WR-SR, MultiView, RealSR and DRealSR; WEIGHTS the published weights of RLFN, HiT-SRF,
# an RRDB and LPIPS. OUT gets rows.csv, settings.json, table.md and report.html. Stopped, it goes on when it is called
# again. RRDB, the slowest network, is measured on every third picture, unrelated references with the default preset alone:
# all took 83 minutes on two cores (PROCESSES 2) that other work shared. DEF_EVALUATE holds further words for
# `def-hub evaluate`, such as `--model FOLDER`, `--every 6`, or methods that were trained here: `--method srcnn=FILE`.
set -eu
data=$1 weights=$2 out=$3 processes=${4:-1}
export ACCELERATE_USE_CPU="${ACCELERATE_USE_CPU:-true}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# shellcheck disable=SC2086 # DEF_EVALUATE is several words
exec torchrun --standalone --nproc_per_node "$processes" "$(command -v def-hub)" evaluate \
    "$data/Set5" "$data/Set14" "$data/Urban100" "$data/WR-SR" "$data/MultiView" "$data/RealSR" "$data/DRealSR" \
    --method bicubic --method "rlfn=$weights/rlfn_x4.safetensors" --method "hitsrf=$weights/hitsrf_x4.safetensors" \
    --method "rrdb=$weights/realsr_df2k_rrdb_x4.safetensors" --every 1 rrdb=3 \
    --method def:fast --method def:balanced --method def:detail \
    --references def:fast=none def:fast=first def:detail=none def:detail=first \
    --lpips "$weights/lpips_squeeze_v0.1.safetensors" --output "$out" --report --resume ${DEF_EVALUATE:-}
