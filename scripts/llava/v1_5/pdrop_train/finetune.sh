#!/usr/bin/env bash
# LLaVA-1.5, stage 2, DUET in the loop. Positional arguments as in AMD-AGI/DUET-VLM:
#   finetune.sh RUN_NAME OUTPUT_DIR LAYERS RATIOS PROJECTOR DOMINANT CONTEXTUAL CLUSTER_WIDTH REPORT_TO [section.key=value ...]
# Environment, and DRY_RUN=1: scripts/train.sh.
export ZERO="${ZERO:-3}"
exec bash "$(dirname "$0")/../../../train.sh" configs/train/llava15_finetune.yaml \
    "run_name output_dir layer_list=[16,24] image_token_ratio_list=[0.5,0.0] pretrain_mm_mlp_adapter dominant_num=300 context_num=7 cluster_width=4 report_to" "$@"
