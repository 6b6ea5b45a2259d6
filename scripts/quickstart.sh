#!/usr/bin/env bash
# From a fresh clone to the small world's table: environment, held-out pictures, two trained models with several methods
# at three budgets, table, plot, and the patches that each stage kept in one picture.
#   bash scripts/quickstart.sh
#   VENV=~/venvs/duet PYTHON=python3.12 COUNT=60 bash scripts/quickstart.sh batch_size=16
# COUNT: questions per benchmark. Arguments go to `duet sweep`. An interrupted run continues where it stopped.
# About 3 minutes on 2 CPU cores after the installation.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${VENV:-.venv}"
output="${OUTPUT:-outputs/quickstart}"
data=playground/data/mini
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
[ -x "$venv/bin/duet" ] || "$venv/bin/python" -m pip install -e ".[plot]"
PATH="$(cd "$venv/bin" && pwd):$PATH"

python -m playground.mini.generate eval --count "${COUNT:-180}" --output "$data"
duet sweep configs/eval/quickstart.yaml data="$data/eval" output="$output" "$@"
duet report "$output"

question=$'What number is written in the image?\nAnswer the question using a single word or phrase.'
for method in visionzip pyramiddrop duet_c duet; do
    duet viz "$data/eval/gqa/data/images/n00000000.png" "$question" --method "$method" --output "$output/kept-$method.png"
done
