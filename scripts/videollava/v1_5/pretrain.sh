#!/usr/bin/env bash
# Video-LLaVA, stage 1, DUET in the loop.
#   pretrain.sh RUN_NAME OUTPUT_DIR [section.key=value ...]
# Environment, and DRY_RUN=1: scripts/train.sh.
export ZERO="${ZERO:-2}"
exec bash "$(dirname "$0")/../../train.sh" configs/train/videollava_pretrain.yaml \
    "run_name output_dir" "$@"
