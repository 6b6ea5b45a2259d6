#!/usr/bin/env bash
# Qwen2.5-VL, and Qwen2-VL and Qwen3-VL with MODEL, in the style of their own sft scripts, DUET in the loop.
#   finetune.sh RUN_NAME OUTPUT_DIR [section.key=value ...]
# Environment, and DRY_RUN=1: scripts/train.sh.
export ZERO="${ZERO:-3}"
exec bash "$(dirname "$0")/../train.sh" configs/train/qwen2_5_vl_finetune.yaml \
    "run_name output_dir" "$@"
