#!/usr/bin/env bash
# GQA with Qwen2.5-VL-7B. The setting is METHOD_TOKENS (duet_640, duet_c_320, visionzip_160, ...), or baseline.
#   bash scripts/qwen/gqa.sh duet_640
# Overrides: scripts/evaluate.sh.
exec bash "$(dirname "$0")/evaluate.sh" gqa "${1:-duet_640}"
