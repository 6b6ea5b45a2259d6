#!/usr/bin/env bash
# Drives the page of `duet demo` in a real Chromium, in the environment that is active.
#   bash scripts/browser.sh                      installs what is missing, then runs the tests
#   DUET_SHOTS=outputs bash scripts/browser.sh   keeps a picture of the page, outputs/demo.png
# A Chromium of your own: DUET_CHROMIUM=/path/to/chromium.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
python="${PYTHON:-python}"

"$python" -c "import gradio, playwright" 2>/dev/null || "$python" -m pip install -e ".[demo]" playwright
if [[ -z "${DUET_CHROMIUM:-}" ]] && ! command -v chromium google-chrome >/dev/null; then
  "$python" -m playwright install --with-deps chromium
  DUET_CHROMIUM="$("$python" -c 'from playwright.sync_api import sync_playwright as s
with s() as p: print(p.chromium.executable_path)')"
  export DUET_CHROMIUM
fi
mkdir -p "${DUET_SHOTS:-.}"
"$python" -m pytest -q -m browser tests/duet/demo "$@"
