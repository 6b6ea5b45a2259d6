#!/usr/bin/env bash
# Settings for training on AMD Instinct nodes (MI300X, MI325X): `. scripts/env/rocm.sh`, then the training command.
# A variable that is already set stays. Only settings with a documented effect on these nodes are here; the values are
# those of AMD's Primus training environment where nothing else is said.

# Same kernel order in the compute and the communication queue, so that communication overlaps and does not wait.
export CUDA_DEVICE_MAX_CONNECTIONS="${CUDA_DEVICE_MAX_CONNECTIONS:-1}"
# Two hardware queues per process: more make compute and communication kernels wait for each other.
export GPU_MAX_HW_QUEUES="${GPU_MAX_HW_QUEUES:-2}"
# Copies between GPUs run on the copy engines and leave the compute units alone.
export HSA_ENABLE_SDMA="${HSA_ENABLE_SDMA:-1}"
# RCCL's collectives run in streams of high priority.
export TORCH_NCCL_HIGH_PRIORITY="${TORCH_NCCL_HIGH_PRIORITY:-1}"
# No checks of every RCCL call's arguments.
export NCCL_CHECKS_DISABLE="${NCCL_CHECKS_DISABLE:-1}"
# Every network card talks to its own rail: no traffic from one card to another's switch.
export NCCL_CROSS_NIC="${NCCL_CROSS_NIC:-0}"
# RoCE v2: the index of the address that routers forward.
export NCCL_IB_GID_INDEX="${NCCL_IB_GID_INDEX:-3}"
# No detour over another GPU's card: eight GPUs have eight cards.
export NCCL_PXN_DISABLE="${NCCL_PXN_DISABLE:-1}"
# Pieces of 512 KiB in sends between two processes.
export NCCL_P2P_NET_CHUNKSIZE="${NCCL_P2P_NET_CHUNKSIZE:-524288}"

# Of your network; several nodes need them: the interface between nodes (`ip -br address`), the RDMA cards (`ibv_devices`).
if [ -n "${NET_INTERFACE:-}" ]; then
    export NCCL_SOCKET_IFNAME="$NET_INTERFACE" GLOO_SOCKET_IFNAME="$NET_INTERFACE"
fi
if [ -n "${NET_CARDS:-}" ]; then
    export NCCL_IB_HCA="$NET_CARDS"
fi
# One thread of OpenMP per process and core group: eight processes would otherwise start all cores' threads each.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-8}"
# Tokenizers must not start threads in the data loader's processes.
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
