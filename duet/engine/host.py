"""What the host has to know of a prompt, in one copy from the device.

Everything else that decides lengths is known beforehand: a budget's counts, and the sizes of pictures. So the host
reads ids, masks, labels and grids once, plans all lengths, and never waits for the device again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def read_host(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """The integer and bool tensors among some values, on the host."""
    whole = {name: one for name, one in values.items() if torch.is_tensor(one) and not one.is_floating_point()}
    there = {name: one for name, one in whole.items() if one.device.type not in ("cpu", "meta")}
    if not there:
        return whole
    packed = torch.cat([one.reshape(-1).long() for one in there.values()]).cpu()
    parts = packed.split([one.numel() for one in there.values()])
    found = {name: part.view(one.shape).to(one.dtype) for (name, one), part in zip(there.items(), parts, strict=True)}
    return {**whole, **found}


def upload(value: Tensor, device: torch.device) -> Tensor:
    """A host tensor on a device; the host goes on before it has arrived."""
    return value.to(device, non_blocking=True)


def first_marked(marks: Tensor, count: int) -> Tensor:
    """Flat indices of the `count` marked entries, ascending; `nonzero` would wait for their number."""
    return marks.flatten().int().sort(descending=True, stable=True).indices[:count]
