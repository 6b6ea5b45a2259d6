"""The next layers as a function of the tokens that enter them, for rules that look ahead.

Nothing of it is cached, and no gradient reaches the model's weights. Dropout is off, so a training step draws the same
random numbers as without it. What the budget does to those layers later on (drops, frozen tokens, layers without
pictures) is not known yet and left out.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from duet.engine.compat import execution_device, is_partitioned, not_capturing
from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from duet.engine.tokens import Tokens
    from duet.interfaces import TextModel


@dataclass(frozen=True)
class Ahead:
    """What some layers make of the tokens of one boundary.

    Attributes:
        lm: text model.
        number: the first of the layers.
        tokens: at the boundary.
        rope: their rotary tables.
        mask: their attention mask, as the layers want it.
    """

    lm: TextModel
    number: int
    tokens: Tokens
    rope: tuple[Tensor, Tensor]
    mask: Any

    def __call__(self, hidden: Tensor, layers: int = 1) -> Tensor:
        """The states after some layers, or after all that are left; differentiable.

        Args:
            hidden: `[B, T, D]` in place of the tokens' own.
            layers: how many, at least 1.

        Returns:
            `[B, T, D]`, on the device of the last of the layers.

        Raises:
            UserError: the layers' weights are spread over processes, which take part in a layer only together.
        """
        if is_partitioned(self.lm.layers[self.number]):
            raise UserError(
                "this stage 2 runs layers ahead, which sharded weights (ZeRO-3, FSDP) do not allow: choose another one "
                "or keep the weights of a layer whole"
            )
        deep, last = list(self.tokens.deep), self.lm.config.num_hidden_layers
        for layer in self.lm.layers[self.number : min(self.number + layers, last)]:
            device = execution_device(layer) or hidden.device
            hidden = hidden.to(device)
            with _still(layer), not_capturing():
                # not through its own __call__: with gradient checkpointing, that would begin a checkpoint
                hidden = nn.Module.__call__(
                    layer,
                    hidden,
                    attention_mask=_usable(self.mask, device),
                    position_embeddings=tuple(_usable(table, device) for table in self.rope),
                    past_key_values=None,
                )
            if deep:
                hidden = hidden + _usable(deep.pop(0), device)
        return hidden


@contextmanager
def _still(layer: nn.Module) -> Iterator[None]:
    """Turn dropout off inside the block."""
    active = [module for module in layer.modules() if module.training]
    for module in active:
        module.training = False
    try:
        yield
    finally:
        for module in active:
            module.training = True


def _usable(value: Any, device: torch.device) -> Any:
    """A table on a device; one made in `inference_mode` is copied, since no gradient may pass it."""
    if not torch.is_tensor(value):
        return value
    value = value.detach().to(device)
    return value.clone() if value.is_inference() else value
