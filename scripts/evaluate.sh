#!/usr/bin/env bash
# One benchmark under DUET: the common part of scripts/*/.../pope.sh and its siblings.
#   bash scripts/evaluate.sh TASK DEFAULT_MODEL DEFAULT_BUDGET
# Overrides: MODEL DATA OUTPUT METHOD BUDGET BATCH_SIZE NPROC; PYTHON names the interpreter.
# DRY_RUN=1 prints the command instead of running it.
set -euo pipefail
cd "$(dirname "$0")/.."

task=$1 model=${MODEL:-$2} budget=${BUDGET:-$3} method=${METHOD:-duet}
data=${DATA:-./playground/data/eval} nproc=${NPROC:-1}
[ "$method" != none ] || budget=full
output=${OUTPUT:-outputs/$(basename "$model")/$method@$budget}

launch=("${PYTHON:-python}")
[ "$nproc" = 1 ] || launch=(accelerate launch --num_processes "$nproc")
command=("${launch[@]}" -m duet.cli.main eval --model "$model" --method "$method" --tasks "$task" --data "$data"
    --batch-size "${BATCH_SIZE:-16}" --output "$output")
[ "$method" = none ] || command+=(--budget "$budget")

if [ -n "${DRY_RUN:-}" ]; then
    printf '%s\n' "${command[*]}"
else
    exec "${command[@]}"
fi
