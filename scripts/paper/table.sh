#!/usr/bin/env bash
# Fills a table of the paper and prints it beside the printed values: the common part of table1.sh to table11.sh.
#   bash scripts/paper/table.sh NUMBER
# Overrides: MODEL DATA OUTPUT BATCH_SIZE NPROC, RECIPE for Tables 3 and 6; PYTHON names the interpreter.
# DRY_RUN=1 prints the commands instead of running them. What has run already is not run again.
# Ends with 2 where the table needs a backbone that this version does not have.
set -euo pipefail
cd "$(dirname "$0")/../.."

duet=("${PYTHON:-python}" -m duet.cli.main)
options=(--data "${DATA:-./playground/data/eval}" --batch-size "${BATCH_SIZE:-16}" --processes "${NPROC:-1}")
[ -z "${MODEL:-}" ] || options+=(--model "$MODEL")
[ -z "${RECIPE:-}" ] || options+=(--recipe "$RECIPE")
results=()
[ -z "${OUTPUT:-}" ] || results=(--results "$OUTPUT")

plan=$("${duet[@]}" table "$1" --plan "${options[@]}" "${results[@]}")
if [ -n "${DRY_RUN:-}" ]; then
    printf '%s\n' "$plan"
else
    while read -r command; do
        code=0
        bash -c "$command" </dev/null || code=$?
        # 3: some questions could not be asked; the table marks them
        [ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"
    done <<<"$plan"
    "${duet[@]}" table "$1" "${results[@]}"
fi
