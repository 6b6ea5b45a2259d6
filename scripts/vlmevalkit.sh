#!/usr/bin/env bash
# VLMEvalKit in an environment of its own (scripts/env/own.sh), then the test that needs it: its run.py on two local
# benchmarks through `duet serve` and the launcher.
#   bash scripts/vlmevalkit.sh
# On the package index VLMEvalKit is ms-vlmeval, with some sixty requirements (2.5 GB with torch for CPUs).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env/own.sh

own_environment vlmevalkit
add -e ".[serve]" pytest hypothesis
torch="$("$python" -c "import torch; print(torch.__version__)")"
add "ms-vlmeval${VLMEVAL:-==0.0.20}" "torch==$torch"
"$python" -c "import torchvision" 2>/dev/null || torchvision_on_cpu
"$python" -m pytest -q -m vlmevalkit tests/duet/integrations "$@"
