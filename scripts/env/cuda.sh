#!/usr/bin/env bash
# Settings for training on NVIDIA nodes: `. scripts/env/cuda.sh`, then the training command. A variable that is already
# set stays.

# Memory blocks that grow: batches of different lengths otherwise leave gaps that nothing fits into.
export PYTORCH_CUDA_ALLOC_CONF="${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}"
# Same kernel order in the compute and the communication queue, so that ZeRO's communication overlaps.
export CUDA_DEVICE_MAX_CONNECTIONS="${CUDA_DEVICE_MAX_CONNECTIONS:-1}"
# A process that fails ends the others instead of leaving them to wait for the time limit.
export TORCH_NCCL_ASYNC_ERROR_HANDLING="${TORCH_NCCL_ASYNC_ERROR_HANDLING:-1}"

# Of your network; several nodes need it: the interface between nodes (`ip -br address`).
if [ -n "${NET_INTERFACE:-}" ]; then
    export NCCL_SOCKET_IFNAME="$NET_INTERFACE" GLOO_SOCKET_IFNAME="$NET_INTERFACE"
fi
# One thread of OpenMP per process and core group: eight processes would otherwise start all cores' threads each.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-8}"
# Tokenizers must not start threads in the data loader's processes.
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
