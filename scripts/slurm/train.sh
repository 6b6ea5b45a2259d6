#!/usr/bin/env bash
# Trains a recipe on any number of nodes: one task per node, torchrun inside. Options of sbatch win over those above.
#   sbatch --nodes 4 --partition P scripts/slurm/train.sh configs/train/llava15_finetune.yaml \
#       training.deepspeed=configs/deepspeed/zero3.json
#   DRY_RUN=1 bash scripts/slurm/train.sh RECIPE.yaml       prints the command
# 120 seconds before the end of its time the job gets SIGTERM, writes a checkpoint and ends; the same command continues.
# Environment: ENV_FILE (scripts/env/rocm.sh or cuda.sh), GPUS per node, PORT, PYTHON, SRUN_ARGS (e.g. a container).
#SBATCH --job-name=duet
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/../..}"
[ $# -gt 0 ] || { echo "name a recipe: scripts/slurm/train.sh RECIPE.yaml [section.key=value ...]" >&2; exit 2; }

nodes="${SLURM_JOB_NUM_NODES:-${NODES:-1}}"
gpus="${GPUS:-${SLURM_GPUS_ON_NODE:-8}}"
port="${PORT:-29502}"
python="${PYTHON:-python}"
env_file="${ENV_FILE:-}"
if [ -n "${SLURM_JOB_NODELIST:-}" ]; then
    head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
else
    head="${HEAD:-127.0.0.1}"
fi
run="$python -m torch.distributed.run --nnodes $nodes --nproc_per_node $gpus --rdzv_backend c10d"
run="$run --rdzv_endpoint $head:$port --rdzv_id ${SLURM_JOB_ID:-1} -m duet.train.run $(printf ' %q' "$@")"

# torchrun gives its processes 30 seconds after a SIGTERM, too few for a checkpoint of 90 GB. So it runs in a session of
# its own, and the signal goes to the training processes alone: they save, end, and torchrun with them.
task="set -u; ${env_file:+. $env_file; }setsid $run & agent=\$!"
task="$task; trap 'for child in \$(pgrep -P \$agent); do kill -TERM \$child; done' TERM"
task="$task; while true; do wait \$agent; code=\$?; kill -0 \$agent 2>/dev/null || exit \$code; done"

if [ "${DRY_RUN:-0}" = 1 ]; then
    echo "srun --kill-on-bad-exit=1 ${SRUN_ARGS:-} bash -c $(printf '%q' "$task")"
    exit 0
fi
# shellcheck disable=SC2086
exec srun --kill-on-bad-exit=1 ${SRUN_ARGS:-} bash -c "$task"
