#!/usr/bin/env bash
# Answers MSRVTT-QA with Video-LLaVA-7B under DUET at 960 tokens; eval_qa_msrvtt.sh has a judge score the answers.
# Overrides: scripts/evaluate.sh.
exec bash "$(dirname "$0")/../../../evaluate.sh" msrvtt LanguageBind/Video-LLaVA-7B-hf videollava_960
