#!/usr/bin/env bash
# Video-LLaVA, stage 2, DUET in the loop.
#   finetune.sh RUN_NAME OUTPUT_DIR [section.key=value ...]
# Environment, and DRY_RUN=1: scripts/train.sh.
export ZERO="${ZERO:-2}"
exec bash "$(dirname "$0")/../../train.sh" configs/train/videollava_finetune.yaml \
    "run_name output_dir" "$@"
