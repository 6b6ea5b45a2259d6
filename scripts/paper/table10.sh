#!/usr/bin/env bash
# Paper Table 10: Local clusters, LLaVA-NeXT-7B. Overrides: scripts/paper/table.sh.
exec bash "$(dirname "$0")/table.sh" 10
