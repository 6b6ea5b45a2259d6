"""Selects the trained parameters: all, all but some prefixes, or the projector alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from duet.errors import UserError
from duet.train.ranks import size_of

PROJECTOR = "multi_modal_projector"


def freeze(model: nn.Module, prefixes: Sequence[str] = (), projector_only: bool = False) -> int:
    """Set `requires_grad` of all parameters and return how many numbers are trained.

    Raises:
        UserError: if a prefix matches no parameter, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(_under(name, prefix) for name in names):
            tops = sorted({".".join(name.split(".")[:2]) for name in names})
            raise UserError(f"freeze: no parameter is under {prefix!r}; the model has {', '.join(tops)}")
    learned = 0
    for name, parameter in model.named_parameters():
        fixed = any(_under(name, prefix) for prefix in prefixes) or (projector_only and PROJECTOR not in name)
        parameter.requires_grad_(not fixed)
        learned += 0 if fixed else size_of(parameter)
    if learned == 0:
        raise UserError("freeze: nothing is left to train")
    return learned


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")
