#!/usr/bin/env bash
# Tests of training in several processes (gloo, CPU): ZeRO-2, ZeRO-3, FSDP2, kills and resuming. Minutes; needs deepspeed
# and a C++ compiler. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false DS_ACCELERATOR=cpu
exec "${PYTHON:-python}" -m pytest -q -m slow tests/duet/train "$@"
