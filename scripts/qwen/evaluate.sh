#!/usr/bin/env bash
# One benchmark with Qwen2.5-VL-7B: the common part of pope.sh and its siblings.
#   bash scripts/qwen/evaluate.sh TASK SETTING
# SETTING is METHOD_TOKENS, or baseline (also none): all tokens. TOKENS is 640, 320 or 160, the stated averages of paper
# Table 15; its printed counts and ratios keep more, so these budgets are the ones that keep the stated averages.
# Overrides: scripts/evaluate.sh.
set -euo pipefail
task=$1 setting=$2
case $setting in
    baseline | none) method=none budget=full ;;
    *_640 | *_320 | *_160) method=${setting%_*} budget=qwen2_5_vl_${setting##*_}_safe ;;
    *)
        echo "setting $setting is not METHOD_TOKENS with 640, 320 or 160 tokens, nor baseline" >&2
        exit 2
        ;;
esac
METHOD="${METHOD:-$method}" exec bash "$(dirname "$0")/../evaluate.sh" "$task" Qwen/Qwen2.5-VL-7B-Instruct "$budget"
