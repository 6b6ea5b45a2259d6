#!/usr/bin/env bash
# Judges the answers of one video benchmark: the common part of scripts/videollava/v1_5/eval/eval_qa_*.sh.
#   JUDGE_URL=http://localhost:8000/v1 JUDGE_MODEL=NAME bash scripts/judge.sh TASK DEFAULT_MODEL DEFAULT_BUDGET
# Overrides: MODEL DATA OUTPUT METHOD BUDGET as for the answers, JUDGE_URL JUDGE_MODEL; PYTHON names the interpreter.
# The key comes from DUET_JUDGE_KEY or OPENAI_API_KEY. DRY_RUN=1 prints the command instead of running it.
set -euo pipefail
cd "$(dirname "$0")/.."

task=$1 model=${MODEL:-$2} budget=${BUDGET:-$3} method=${METHOD:-duet}
[ "$method" != none ] || budget=full
folder=${OUTPUT:-outputs/$(basename "$model")/$method@$budget}/$task

command=("${PYTHON:-python}" -m duet.cli.main judge "$task" --data "${DATA:-./playground/data/eval}"
    --predictions "$folder/predictions.jsonl" --json "$folder/judge.json"
    --judge-url "${JUDGE_URL:-https://api.openai.com/v1}" --judge-model "${JUDGE_MODEL:-gpt-3.5-turbo}")
if [ -n "${DRY_RUN:-}" ]; then
    printf '%s\n' "${command[*]}"
else
    exec "${command[@]}"
fi
