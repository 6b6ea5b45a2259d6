#!/usr/bin/env bash
# Has a judge score the answers of run_qa_msrvtt.sh to MSRVTT-QA. Overrides: scripts/judge.sh.
exec bash "$(dirname "$0")/../../../judge.sh" msrvtt LanguageBind/Video-LLaVA-7B-hf videollava_960
