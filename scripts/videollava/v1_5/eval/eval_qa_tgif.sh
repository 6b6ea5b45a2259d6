#!/usr/bin/env bash
# Lets a judge score what run_qa_tgif.sh has answered on TGIF-QA. Overrides: scripts/judge.sh.
exec bash "$(dirname "$0")/../../../judge.sh" tgif LanguageBind/Video-LLaVA-7B-hf videollava_960
