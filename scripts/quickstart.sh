#!/usr/bin/env bash
# From a fresh clone to the small world's table: environment, held-out pictures, two trained models with several methods
# at three budgets, table, plot, and the patches that each stage kept in one picture.
#   bash scripts/quickstart.sh
#   bash scripts/quickstart.sh --all          # all nine tasks: a small Video-LLaVA on the three video benchmarks, too
#   VENV=~/venvs/duet PYTHON=python3.12 COUNT=60 bash scripts/quickstart.sh batch_size=16
# COUNT: questions per benchmark. Other arguments go to `duet sweep`. An interrupted run continues where it stopped.
# About 3 minutes on 2 CPU cores after the installation, several more with --all.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${VENV:-.venv}"
output="${OUTPUT:-outputs/quickstart}"
data=playground/data/mini
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

all=""
if [ "${1:-}" = --all ]; then
    all=1
    shift
fi

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
[ -x "$venv/bin/duet" ] || "$venv/bin/python" -m pip install -e ".[plot${all:+,video}]"
[ -z "$all" ] || "$venv/bin/python" -c "import av" 2>/dev/null || "$venv/bin/python" -m pip install -e ".[plot,video]"
PATH="$(cd "$venv/bin" && pwd):$PATH"

python -m playground.mini.generate eval --count "${COUNT:-180}" --output "$data"
duet sweep configs/eval/quickstart.yaml data="$data/eval" output="$output" "$@"
duet report "$output"

if [ -n "$all" ]; then
    python -m playground.mini.generate videos --count "${COUNT:-180}" --output "$data"
    duet sweep configs/eval/quickstart_video.yaml data="$data/videos" output="${output}_video" "$@"
    duet report "${output}_video"
fi

question=$'What number is written in the image?\nAnswer the question using a single word or phrase.'
for method in visionzip pyramiddrop duet_c duet; do
    duet viz "$data/eval/gqa/data/images/n00000000.png" "$question" --method "$method" --output "$output/kept-$method.png"
done
