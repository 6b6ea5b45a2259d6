#!/usr/bin/env bash
# ScienceQA with Qwen2.5-VL-7B. The setting is METHOD_TOKENS: duet_640, duet_320, duet_160, visionzip_640, ... or none.
#   bash scripts/qwen/sqa.sh duet_640
# Tokens are the stated averages of paper Table 15 (duet budget list). Overrides: scripts/evaluate.sh.
setting=${1:-duet_640}
export METHOD="${METHOD:-${setting%_*}}"
exec bash "$(dirname "$0")/../evaluate.sh" scienceqa Qwen/Qwen2.5-VL-7B-Instruct "qwen2_5_vl_${setting##*_}"
