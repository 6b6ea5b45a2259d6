#!/usr/bin/env bash
# LLaVA-1.5, stage 1, DUET in the loop. Positional arguments as in AMD-AGI/DUET-VLM:
#   pretrain.sh RUN_NAME OUTPUT_DIR LAYERS RATIOS DOMINANT CONTEXTUAL CLUSTER_WIDTH REPORT_TO [section.key=value ...]
# Environment, and DRY_RUN=1: scripts/train.sh.
export ZERO="${ZERO:-2}"
exec bash "$(dirname "$0")/../../../train.sh" configs/train/llava15_pretrain.yaml \
    "run_name output_dir layer_list=[16,24] image_token_ratio_list=[0.5,0.0] dominant_num=300 context_num=7 cluster_width=4 report_to" "$@"
