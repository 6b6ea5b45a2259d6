#!/usr/bin/env bash
# Fills a table of the paper and prints it beside the printed values: the common part of table1.sh to table11.sh.
#   bash scripts/paper/table.sh NUMBER
# Overrides: MODEL DATA OUTPUT BATCH_SIZE NPROC, RECIPE for Tables 3 and 6; TOKENS=192,64 and ROWS=visionzip,duet_c for
# some rows only; PYTHON names the interpreter. DRY_RUN=1 prints the commands instead of running them. Finished runs are
# not repeated.
set -euo pipefail
cd "$(dirname "$0")/../.."

options=(--data "${DATA:-./playground/data/eval}" --batch-size "${BATCH_SIZE:-16}" --processes "${NPROC:-1}")
[ -z "${MODEL:-}" ] || options+=(--model "$MODEL")
[ -z "${RECIPE:-}" ] || options+=(--recipe "$RECIPE")
[ -z "${OUTPUT:-}" ] || options+=(--results "$OUTPUT")
[ -z "${TOKENS:-}" ] || options+=(--tokens "$TOKENS")
[ -z "${ROWS:-}" ] || options+=(--rows "$ROWS")
if [ -n "${DRY_RUN:-}" ]; then options+=(--plan); else options+=(--run); fi
exec "${PYTHON:-python}" -m duet.cli.main table "$1" "${options[@]}"
