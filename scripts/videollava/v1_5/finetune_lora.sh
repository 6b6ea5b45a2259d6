#!/usr/bin/env bash
# Video-LLaVA, stage 2 as LoRA, DUET in the loop.
#   finetune_lora.sh RUN_NAME OUTPUT_DIR [section.key=value ...]
# Environment, and DRY_RUN=1: scripts/train.sh.
export ZERO="${ZERO:-2}"
exec bash "$(dirname "$0")/../../train.sh" configs/train/videollava_finetune_lora.yaml \
    "run_name output_dir" "$@"
