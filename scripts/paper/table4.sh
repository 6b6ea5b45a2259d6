#!/usr/bin/env bash
# Paper Table 4: Methods without training, Video-LLaVA-7B. Overrides: scripts/paper/table.sh.
exec bash "$(dirname "$0")/table.sh" 4
