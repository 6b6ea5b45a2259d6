#!/usr/bin/env bash
# Has a judge score the answers of run_qa_tgif.sh to TGIF-QA. Overrides: scripts/judge.sh.
exec bash "$(dirname "$0")/../../../judge.sh" tgif LanguageBind/Video-LLaVA-7B-hf videollava_960
