#!/usr/bin/env bash
# Paper Table 5: Speed without training, LLaVA-1.5-7B. Overrides: scripts/paper/table.sh.
exec bash "$(dirname "$0")/table.sh" 5
