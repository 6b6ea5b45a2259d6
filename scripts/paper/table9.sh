#!/usr/bin/env bash
# Paper Table 9: Voting text tokens, LLaVA-NeXT-7B. Overrides: scripts/paper/table.sh.
exec bash "$(dirname "$0")/table.sh" 9
