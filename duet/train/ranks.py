"""Processes that train together: starting their communication, agreeing on something, and partitioned weights."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start_communication(training: Any) -> None:
    """Start DeepSpeed's communication before anything asks for the number of processes.

    ZeRO-3 partitions a model while it is loaded, and its configuration counts the processes when it is read; on a CPU
    transformers would start the communication after both. A single process gets the environment of `torchrun`.

    Args:
        training: the recipe's section, not yet checked; `deepspeed` and `use_cpu` count here.
    """
    if not isinstance(training, Mapping) or not training.get("deepspeed") or find_spec("deepspeed") is None:
        return
    if dist.is_initialized():
        return
    import deepspeed

    if "RANK" not in os.environ:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = str(_free_port())
    if training.get("use_cpu") or not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        deepspeed.init_distributed("gloo", verbose=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def meet() -> None:
    """Wait until all processes have come here."""
    if processes() > 1:
        dist.barrier()


def told(value: Any) -> Any:
    """What the first process passes, on all of them; every process must call it."""
    if processes() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def gathered(value: Any) -> list[Any]:
    """What each process passes, in their order; every process must call it."""
    if processes() == 1:
        return [value]
    held: list[Any] = [None] * processes()
    dist.all_gather_object(held, value)
    return held


def size_of(parameter: Tensor) -> int:
    """Number of values of a whole parameter: ZeRO-3 leaves an empty tensor in its place."""
    return getattr(parameter, "ds_numel", None) or parameter.numel()


def is_partitioned(model: nn.Module) -> bool:
    """Whether each process holds a part of every weight (ZeRO-3, FSDP2): modules then communicate when they run."""
    from torch.distributed.tensor import DTensor

    return any(hasattr(value, "ds_id") or isinstance(value, DTensor) for value in model.parameters())


@contextmanager
def whole(parameters: Sequence[Tensor], modify: bool = False) -> Iterator[None]:
    """Inside the block, parameters of ZeRO-3 are whole on every process; all processes must enter it.

    Args:
        parameters: of the model.
        modify: keep what the first process changes.
    """
    parted = [value for value in parameters if hasattr(value, "ds_id")]
    if not parted:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parted, modifier_rank=0 if modify else None):
        yield


def agree(values: Sequence[float], device: torch.device | str = "cpu") -> list[float]:
    """The largest value of each place over all processes; every process must call it.

    Args:
        values: the same number on every process.
        device: that the processes communicate on.
    """
    if processes() == 1:
        return list(values)
    together = torch.tensor(list(values), dtype=torch.float64, device=device)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return together.tolist()


def total(values: Sequence[float], device: torch.device | str = "cpu") -> list[float]:
    """The sum of each place over all processes; every process must call it."""
    if processes() == 1:
        return list(values)
    together = torch.tensor(list(values), dtype=torch.float64, device=device)
    dist.all_reduce(together)
    return together.tolist()
