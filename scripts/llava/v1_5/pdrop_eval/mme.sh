#!/usr/bin/env bash
# MME with LLaVA-1.5-7B under DUET at 192 tokens. Overrides: scripts/evaluate.sh.
#   BUDGET=llava15_64 METHOD=duet_c bash scripts/llava/v1_5/pdrop_eval/mme.sh
exec bash "$(dirname "$0")/../../../evaluate.sh" mme llava-hf/llava-1.5-7b-hf llava15_192
