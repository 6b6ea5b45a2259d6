#!/usr/bin/env bash
# LLaVA-NeXT, stage 1, DUET in the loop. Several nodes: scripts/slurm/train.sh, or TORCHRUN.
#   pretrain.sh RUN_NAME OUTPUT_DIR [section.key=value ...]
# Environment, and DRY_RUN=1: scripts/train.sh.
export ZERO="${ZERO:-2}"
exec bash "$(dirname "$0")/../../../train.sh" configs/train/llavanext_pretrain.yaml \
    "run_name output_dir" "$@"
