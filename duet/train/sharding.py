"""FSDP2 and ZeRO-3 through the Trainer: FSDP2 on CPUs, whole weights for saving, models that stay whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate.utils import DistributedType
from torch import Tensor
from transformers.integrations.deepspeed import (
    is_deepspeed_zero3_enabled,
    set_hf_deepspeed_config,
    unset_hf_deepspeed_config,
)

from duet.engine.compat import unsplit_layers


def shard_on_cpus(accelerator: Any, plugin_arguments: dict[str, Any] | None) -> bool:
    """Make accelerate shard a model over processes without GPUs; it would train an unsharded copy in each, silently.

    Returns:
        Whether it was changed.
    """
    if plugin_arguments is None or accelerator.state.distributed_type != DistributedType.MULTI_CPU:
        return False
    from accelerate.state import PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(**plugin_arguments)
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    PartialState().distributed_type = DistributedType.FSDP  # all of its objects share what they hold
    return True


def name_units(plugin: Any, model: Any) -> None:
    """Shard the decoder layer by layer, and all else as one, towers included: methods read single layers of a tower.

    Transformers' own list names layers of towers, and for LLaVA classes of CLIP that it lacks: accelerate refuses it.

    Args:
        plugin: accelerate's, unless the run's configuration names the layers.
        model: without wrappers.
    """
    if plugin.transformer_cls_names_to_wrap is None:
        decoder = {type(module).__name__ for name, module in model.named_modules() if "language_model" in name}
        plugin.transformer_cls_names_to_wrap = sorted(decoder & set(unsplit_layers(model)))


def whole_state(model: Any) -> dict[str, Tensor]:
    """All weights of a model sharded by FSDP2, on the CPU of the first process; the others get an empty dictionary."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    whole: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return whole


@contextmanager
def kept_whole(training: Any) -> Iterator[None]:
    """Models loaded inside the block are not partitioned by ZeRO-3: those beside the trained one, like CLIP companions.

    Args:
        training: the training arguments.
    """
    if not is_deepspeed_zero3_enabled():
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(training.hf_deepspeed_config)
