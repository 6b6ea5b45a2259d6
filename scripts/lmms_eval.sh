#!/usr/bin/env bash
# lmms-eval with `--model duet` in an environment of its own (scripts/env/own.sh), then the tests that need it.
#   bash scripts/lmms_eval.sh
#   bash scripts/lmms_eval.sh -k likelihoods            arguments go to pytest
# lmms-eval has some fifty requirements (opencv, wandb, several that are built from source). `--model duet` needs few of
# them: it is installed without, then what it imports. A task may need more; pip install "lmms-eval>=0.7" has them all.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env/own.sh

own_environment lmms-eval
add -e ".[video]" pytest hypothesis
add --no-deps "lmms-eval${LMMS_EVAL:-==0.7.3}"
add datasets loguru jsonlines pytablewriter sacrebleu tenacity evaluate openai scikit-learn chardet
"$python" -m pytest -q -m lmms_eval tests/duet/integrations "$@"
