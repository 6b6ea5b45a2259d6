#!/usr/bin/env bash
# LLaVA-NeXT, stage 2, DUET in the loop. Several nodes: scripts/slurm/train.sh, or TORCHRUN.
#   finetune.sh RUN_NAME OUTPUT_DIR [section.key=value ...]
# Environment, and DRY_RUN=1: scripts/train.sh.
export ZERO="${ZERO:-2}"
exec bash "$(dirname "$0")/../../../train.sh" configs/train/llavanext_finetune.yaml \
    "run_name output_dir" "$@"
