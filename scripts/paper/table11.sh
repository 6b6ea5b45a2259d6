#!/usr/bin/env bash
# Paper Table 11: Voting text tokens in PyramidDrop, LLaVA-1.5-7B. Overrides: scripts/paper/table.sh.
exec bash "$(dirname "$0")/table.sh" 11
