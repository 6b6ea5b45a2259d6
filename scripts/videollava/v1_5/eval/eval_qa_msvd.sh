#!/usr/bin/env bash
# Lets a judge score what run_qa_msvd.sh has answered on MSVD-QA. Overrides: scripts/judge.sh.
exec bash "$(dirname "$0")/../../../judge.sh" msvd LanguageBind/Video-LLaVA-7B-hf videollava_960
