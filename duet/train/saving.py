"""What every saved folder of a run holds beside the weights that the Trainer writes.

duet_config.json          the compression of the run (`duet.checkpoints.setting`)
non_lora_trainables.bin   LoRA: the projector and whatever else was trained beside the adapter, LLaVA's file
mm_projector.bin          a projector trained alone, by LLaVA's names: `model.projector` of the next stage reads it
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from duet.checkpoints.adapters import REST, load_rest
from duet.checkpoints.files import CheckpointError, read_tensors
from duet.checkpoints.setting import FILE, Setting
from duet.engine.attachment import attached
from duet.families import find_family, imported
from duet.loading import names_of
from duet.train.freeze import Parts, is_adapter, plain_name
from duet.train.ranks import whole

PROJECTOR_FILE = "mm_projector.bin"
#: Before the names in `non_lora_trainables.bin`, as peft has them.
_WRAPPED = "base_model.model."


def save_beside(model: nn.Module, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Write the files of the module's docstring, as far as they apply; call it where the weights are written.

    Args:
        model: of the run, maybe with adapters.
        folder: has the weights.
        state_dict: whole tensors by the model's names (ZeRO-3, FSDP); None: the model's own are whole.
    """
    target: Any = Path(folder)
    tensors = dict(model.state_dict()) if state_dict is None else state_dict
    learned = {plain_name(name): name for name, value in model.named_parameters() if value.requires_grad}
    if hasattr(model, "peft_config"):
        rest = {_WRAPPED + plain: _own(tensors[name]) for plain, name in learned.items() if not is_adapter(name)}
        if rest:
            torch.save(rest, target / REST)
    parts = Parts.of_model(model)
    if learned and all(parts.part(name) == "projector" for name in learned):
        back = original_name(model)
        torch.save({back(plain): _own(tensors[name]) for plain, name in learned.items()}, target / PROJECTOR_FILE)
    setting = setting_of(model)
    if setting is not None:
        setting.write(target)
    else:
        (target / FILE).unlink(missing_ok=True)  # of another run in this folder


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def setting_of(model: nn.Module) -> Setting | None:
    """What is attached to a model; None if nothing is."""
    try:
        return attached(model).setting
    except ValueError:
        return None


def original_name(model: nn.Module) -> Any:
    """Translates names of the stock class into the original layout's; families without one keep theirs."""
    module = find_family(model)[1].original
    return str if module is None else imported(f"{module}:to_original_name")


def resume_beside(model: Any, folder: str | Path) -> None:
    """Load what `save_beside` wrote for an adapter."""
    load_rest(model.get_base_model(), Path(folder) / REST, names_of(model.config))


@torch.no_grad()
def read_projector(model: nn.Module, file: str | Path) -> int:
    """Copy a trained projector into a model; returns the number of tensors.

    Args:
        model: stock.
        file: LLaVA's `mm_projector.bin`, or any file with the projector's tensors, also of a whole model.

    Raises:
        CheckpointError: it is not there, damaged, holds no projector, or one of another shape.
    """
    translate, parts = names_of(model.config), Parts.of_model(model)
    wanted = {name: value for name, value in model.named_parameters() if parts.part(name) == "projector"}
    found = {}
    for name, tensor in read_tensors([Path(file)]).items():
        inner = name[name.index("mm_projector.") :] if "mm_projector." in name else None
        stock = plain_name(name) if inner is None else translate(f"model.{inner}")
        stock = stock if stock.startswith("model.") else f"model.{stock}"
        if parts.part(stock) == "projector":
            found[stock] = tensor
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{name} is not of this model" for name in sorted(found.keys() - wanted.keys())]
    faults += [
        f"{name} is {tuple(found[name].shape)}, the model's is {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != _shape(value)
    ]
    if faults:
        raise CheckpointError(f"{file} does not hold this model's projector: {', '.join(faults)}")
    with whole(list(wanted.values()), modify=True):
        for name, value in wanted.items():
            value.copy_(found[name])
    return len(wanted)


def _shape(parameter: Tensor) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))
