#!/usr/bin/env bash
# Answers MSVD-QA with Video-LLaVA-7B under DUET at 960 tokens; eval_qa_msvd.sh has a judge score the answers.
# Overrides: scripts/evaluate.sh.
exec bash "$(dirname "$0")/../../../evaluate.sh" msvd LanguageBind/Video-LLaVA-7B-hf videollava_960
