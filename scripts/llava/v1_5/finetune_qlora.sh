#!/usr/bin/env bash
# LLaVA-1.5, stage 2 as QLoRA, DUET in the loop.
#   finetune_qlora.sh RUN_NAME OUTPUT_DIR [section.key=value ...]
# Environment, and DRY_RUN=1: scripts/train.sh.
export ZERO="${ZERO:-2}"
exec bash "$(dirname "$0")/../../train.sh" configs/train/llava15_finetune_qlora.yaml \
    "run_name output_dir" "$@"
