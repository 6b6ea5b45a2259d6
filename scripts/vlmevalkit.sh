#!/usr/bin/env bash
# VLMEvalKit in an environment of its own, then the test that needs it: its run.py on two local benchmarks through
# `duet serve` and the launcher.
#   bash scripts/vlmevalkit.sh
#   DUET_ENVIRONMENTS=~/venvs bash scripts/vlmevalkit.sh
# On the package index VLMEvalKit is ms-vlmeval, with some sixty requirements (2.5 GB with torch for CPUs).
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${DUET_ENVIRONMENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/duet-vlm}/vlmevalkit"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false
python="$venv/bin/python"

[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$python" -m pip install -q -e ".[serve]" pytest hypothesis
torch="$("$python" -c "import torch; print(torch.__version__)")"
"$python" -m pip install -q "ms-vlmeval${VLMEVAL:-==0.0.20}" "torch==$torch"
if ! "$python" -c "import torchvision" 2>/dev/null; then # its CUDA build beside torch for CPUs
    site="$("$python" -c "import site; print(site.getsitepackages()[0])")"
    cp tests/packaging/vllm/torchvision_on_cpu.py "$site"
    echo "import torchvision_on_cpu" > "$site/torchvision_on_cpu.pth"
fi
HF_HUB_OFFLINE=1 "$python" -m pytest -q -m vlmevalkit tests/duet/integrations "$@"
