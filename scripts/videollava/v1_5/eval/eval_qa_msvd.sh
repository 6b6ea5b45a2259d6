#!/usr/bin/env bash
# Has a judge score the answers of run_qa_msvd.sh to MSVD-QA. Overrides: scripts/judge.sh.
exec bash "$(dirname "$0")/../../../judge.sh" msvd LanguageBind/Video-LLaVA-7B-hf videollava_960
