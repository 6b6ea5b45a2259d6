#!/usr/bin/env bash
# POPE with Qwen2.5-VL-7B. The setting is METHOD_TOKENS (duet_640, duet_c_320, visionzip_160, ...), or baseline.
#   bash scripts/qwen/pope.sh duet_640
# Overrides: scripts/evaluate.sh.
exec bash "$(dirname "$0")/evaluate.sh" pope "${1:-duet_640}"
