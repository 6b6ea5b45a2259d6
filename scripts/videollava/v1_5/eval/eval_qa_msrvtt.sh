#!/usr/bin/env bash
# Lets a judge score what run_qa_msrvtt.sh has answered on MSRVTT-QA. Overrides: scripts/judge.sh.
exec bash "$(dirname "$0")/../../../judge.sh" msrvtt LanguageBind/Video-LLaVA-7B-hf videollava_960
