"""Original checkpoints that hold only trained parts for a language model: a projector, or LoRA weights.

They are completed under original names before anything else: base tensors, then the projector (and other fully trained
tensors), then `W + scale * B A` for every LoRA pair. This is the formula of LoRA (Hu et al. 2021, Sec. 4.1), with
`scale = alpha / r`, or `alpha / sqrt(r)` for rank-stabilised adapters.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.checkpoints.files import CheckpointError, has_weights, read_json, read_tensors, weight_files

if TYPE_CHECKING:
    from torch import Tensor

_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
#: Entries of adapter_config.json that change the meaning of the weights, with their supported values.
_PLAIN_LORA: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
}


def holds_part(folder: Path) -> bool:
    """Whether the folder holds a projector or LoRA weights."""
    return any((folder / name).exists() for name in ("mm_projector.bin", "adapter_config.json"))


def language_model(folder: Path, given: str | Path | None) -> str | Path | None:
    """The language model below a folder that holds only a part: `given`, else the one that an adapter names.

    None for a whole checkpoint, and for a part that names none.
    """
    if given is None and (folder / "adapter_config.json").exists() and not has_weights(folder):
        return read_json(folder / "adapter_config.json").get("base_model_name_or_path") or None
    return given


def read_original(folder: Path, base: Path | None) -> dict[str, Tensor]:
    """Tensors of an original checkpoint, whole or combined with the language model in `base`.

    Raises:
        CheckpointError: see `read_on_base`; or a part without a base.
    """
    if base is not None:
        return read_on_base(folder, base)
    if holds_part(folder) and not has_weights(folder):
        raise CheckpointError(f"{folder} holds only a part of a model: name the language model with model_base")
    return read_tensors(weight_files(folder))


def read_on_base(folder: Path, base: Path) -> dict[str, Tensor]:
    """Tensors of a whole model, original names: the language model in `base` with the trained parts in `folder`.

    Raises:
        CheckpointError: `folder` holds neither a projector nor LoRA weights, or an unsupported kind of LoRA.
    """
    tensors = read_tensors(weight_files(base))
    if (folder / "adapter_config.json").exists():
        tensors |= _whole_tensors(folder / "non_lora_trainables.bin")
        merge_lora(tensors, *_read_adapter(folder))
    elif (folder / "mm_projector.bin").exists():
        tensors |= _whole_tensors(folder / "mm_projector.bin")
    else:
        raise CheckpointError(
            f"a model base was given, but {folder} has neither mm_projector.bin nor adapter_config.json; "
            "leave the base out for a whole checkpoint"
        )
    return tensors


def _whole_tensors(file: Path) -> dict[str, Tensor]:
    if not file.exists():
        raise CheckpointError(f"{file.parent} has no {file.name}, which holds the trained projector")
    return {plain_name(name): tensor for name, tensor in read_tensors([file]).items()}


def plain_name(name: str) -> str:
    """The name without the prefixes of peft's wrappers."""
    name = name.removeprefix("base_model.")
    return name.removeprefix("model.") if name.startswith(("model.model.", "model.lm_head.")) else name


def _read_adapter(folder: Path) -> tuple[dict[str, Tensor], float]:
    config = read_json(folder / "adapter_config.json")
    for name, values in _PLAIN_LORA.items():
        if config.get(name) not in values:
            raise CheckpointError(
                f"{folder / 'adapter_config.json'} says {name} = {config.get(name)!r}; only plain LoRA is merged here. "
                "Merge it with peft (`merge_and_unload`) and load the result"
            )
    names = ("adapter_model.safetensors", "adapter_model.bin")
    file = next((folder / name for name in names if (folder / name).exists()), None)
    if file is None:
        raise CheckpointError(f"{folder} has an adapter_config.json, but none of {', '.join(names)}")
    for name in ("r", "lora_alpha"):
        if isinstance(config.get(name), bool) or not isinstance(config.get(name), (int, float)) or config[name] <= 0:
            raise CheckpointError(
                f"{folder / 'adapter_config.json'} says {name} = {config.get(name)!r}, which is not a rank"
            )
    root = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    return read_tensors([file]), config["lora_alpha"] / root


def merge_lora(tensors: dict[str, Tensor], adapter: dict[str, Tensor], scale: float) -> None:
    """Add `scale * B @ A` to an adapter's target weights, in place.

    Args:
        tensors: weights `[out, in]` by name.
        adapter: `lora_A [r, in]` and `lora_B [out, r]` of each module, under peft's names.
        scale: factor of the product.

    Raises:
        CheckpointError: the adapter holds other tensors, half a pair, or belongs to another model.
    """
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in adapter.items():
        found = _LORA.fullmatch(name)
        if found is None:
            raise CheckpointError(f"the adapter holds {name}, which is not a lora_A or lora_B weight")
        pairs.setdefault(plain_name(found["module"]) + ".weight", {})[found["side"]] = tensor
    for name, pair in pairs.items():
        weight = tensors.get(name)
        if weight is None or len(pair) != 2 or weight.shape != (len(pair["B"]), pair["A"].shape[1]):
            shapes = {f"lora_{side}": tuple(part.shape) for side, part in sorted(pair.items())}
            base = "absent" if weight is None else tuple(weight.shape)
            raise CheckpointError(f"LoRA weights {shapes} do not fit the base model's {name}, which is {base}")
        tensors[name] = (weight.float() + scale * pair["B"].float() @ pair["A"].float()).to(weight.dtype)
