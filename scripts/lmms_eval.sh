#!/usr/bin/env bash
# lmms-eval with `--model duet` in an environment of its own, then the tests that need it.
#   bash scripts/lmms_eval.sh
#   bash scripts/lmms_eval.sh -k likelihoods            arguments go to pytest
#   DUET_ENVIRONMENTS=~/venvs bash scripts/lmms_eval.sh
# lmms-eval has some fifty requirements (opencv, wandb, several that are built from source). `--model duet` needs few of
# them: it is installed without, then what it imports. A task may need more; pip install "lmms-eval>=0.7" has them all.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${DUET_ENVIRONMENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/duet-vlm}/lmms-eval"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false
python="$venv/bin/python"

[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$python" -m pip install -q -e ".[video]" pytest hypothesis
"$python" -m pip install -q --no-deps "lmms-eval${LMMS_EVAL:-==0.7.3}"
"$python" -m pip install -q datasets loguru jsonlines pytablewriter sacrebleu tenacity evaluate openai scikit-learn chardet
HF_HUB_OFFLINE=1 "$python" -m pytest -q -m lmms_eval tests/duet/integrations "$@"
