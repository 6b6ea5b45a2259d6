"""Adapter folders: what peft trained (LoRA, DoRA, ...) for a stock model, and fully trained tensors beside it.

    adapter_config.json         of peft; names the base model
    adapter_model.safetensors   the adapter, by the names of the stock class
    non_lora_trainables.bin     other trained tensors (the projector), by names of the stock class or LLaVA's own

Adapters of the original layout, whose config.json describes a LLaVA over a bare language model, are read by
`duet.checkpoints.partial`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from duet.checkpoints.assemble import LISTED
from duet.checkpoints.files import CheckpointError, has_weights, read_json, read_tensors
from duet.checkpoints.partial import plain_name
from duet.extras import need
from duet.files import blame, is_folder

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
#: Tensors that were trained beside the adapter; LLaVA's name.
REST = "non_lora_trainables.bin"


@contextmanager
def without_old_names() -> Iterator[None]:
    """peft 0.21 asks models for an attribute that transformers 5.23 has renamed; a user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds only an adapter for a stock model."""
    if not (folder / CONFIG).exists() or has_weights(folder):
        return False
    config = folder / "config.json"
    return not (config.exists() and any(name.startswith("mm_") for name in read_json(config)))


def base_of(folder: Path, given: str | Path | None = None) -> str | Path:
    """The base model of an adapter: `given`, else the one that it was trained on.

    Raises:
        CheckpointError: its adapter_config.json names none, or a folder that is not here.
    """
    if given is not None:
        return given
    named = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise CheckpointError(f"{folder / CONFIG} names no base model: give it with model_base (--model-base)")
    beside = folder / named
    if is_folder(beside):
        return beside
    if named.startswith((".", "/", "~")) and not is_folder(Path(named).expanduser()):
        raise CheckpointError(
            f"{folder} is an adapter for {named}, which is not here: say where it is with model_base (--model-base)"
        )
    return named


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """The adapter's tensors by today's names of peft (older ones carry `.default`).

    Raises:
        CheckpointError: there is no file, or it is damaged.
    """
    file = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if file is None:
        raise CheckpointError(f"{folder} has an {CONFIG}, but none of {', '.join(WEIGHTS)}")
    return {name.replace(".default.", "."): tensor for name, tensor in read_tensors([file]).items()}


def add_adapter(model: Any, folder: Path, to_stock_name: Callable[[str], str], *, merge: bool) -> Any:
    """Put an adapter and its fully trained tensors into a model.

    Args:
        model: the base, a stock model.
        folder: of the adapter.
        to_stock_name: translates names of the original layout, see `load_rest`.
        merge: add the adapter to the weights, every layer in float32; else its layers stay beside them.

    Returns:
        The model, of its own class in both cases.

    Raises:
        CheckpointError: another kind of adapter, or tensors that do not fit this model.
        UserError: peft is not installed.
    """
    need(f"the adapter {folder}", "train", "peft")
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    tensors = read_adapter(folder)
    with blame(folder / CONFIG, CheckpointError), without_old_names():
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        wrapped: Any = get_peft_model(model, config)
    wanted = get_peft_model_state_dict(wrapped)
    _check(folder, {name: tuple(tensor.shape) for name, tensor in wanted.items()}, tensors)
    set_peft_model_state_dict(wrapped, tensors)
    load_rest(wrapped.get_base_model(), folder / REST, to_stock_name)
    if merge:
        merge_layers(wrapped)
        return wrapped.unload().eval()
    return wrapped.get_base_model().eval()


def _check(folder: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> None:
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{name} is not of this model" for name in sorted(found.keys() - wanted.keys())]
    faults += [
        f"{name} is {tuple(found[name].shape)}, the model's is {shape}"
        for name, shape in sorted(wanted.items())
        if name in found and tuple(found[name].shape) != shape
    ]
    if faults:
        more = [f"and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        raise CheckpointError(
            f"the adapter in {folder} does not fit its base model: {', '.join([*faults[:LISTED], *more])}"
        )


@torch.no_grad()
def merge_layers(wrapped: Any) -> None:
    """Add every layer's adapter to its weight, computed in float32, whatever the weight's own type."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in wrapped.modules():
        if not isinstance(module, BaseTunerLayer) or not module.active_adapters:
            continue
        layer: Any = module
        base = layer.get_base_layer()
        dtypes = {name: parameter.dtype for name, parameter in base.named_parameters()}
        layer.float()
        layer.merge(safe_merge=False)
        for name, parameter in base.named_parameters():
            parameter.data = parameter.data.to(dtypes[name])


@torch.no_grad()
def load_rest(model: Any, file: Path, to_stock_name: Callable[[str], str]) -> None:
    """Copy the tensors of a `non_lora_trainables.bin` into a model; nothing without the file.

    Args:
        model: stock, or with peft's layers inside.
        file: its names are the stock class's or the original layout's, with or without peft's prefixes.
        to_stock_name: original -> stock name.

    Raises:
        CheckpointError: a tensor that the model has not, or of another shape.
    """
    if not file.exists():
        return
    parameters = {name.replace(".base_layer.", "."): value for name, value in model.named_parameters()}
    for name, tensor in read_tensors([file]).items():
        plain = plain_name(name)
        target = parameters.get(plain)
        if target is None:
            target = parameters.get(to_stock_name(plain))
        if target is None or target.shape != tensor.shape:
            has = "none" if target is None else f"one of {tuple(target.shape)}"
            raise CheckpointError(f"{file} holds {name} of {tuple(tensor.shape)}; the model has {has}")
        target.copy_(tensor)
