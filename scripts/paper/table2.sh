#!/usr/bin/env bash
# Paper Table 2: Methods without training, Qwen2.5-VL-7B. Overrides: scripts/paper/table.sh.
exec bash "$(dirname "$0")/table.sh" 2
