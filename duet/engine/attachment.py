"""What `attach` leaves on a model, as one attribute, and how others find it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from duet.engine.call import Compression
    from duet.engine.fixed import Steps
    from duet.ops.regions import Compiled

#: The attribute.
SLOT = "_duet"


@dataclass
class Attachment:
    """The record of `attach` on a model.

    Attributes:
        compression: the parts that calls run under.
        model: the module with the head, which has this as an attribute.
        body: the module without the head.
        lm: the text model.
        handles: of the hooks; empty while they are put in place.
        setting: `save_pretrained` calls its `write(folder)`; None for a method that keeps all tokens.
        steps: compiled steps of decoding.
        compiled: how prompts are compiled (`duet.compile`); None: they are not.
    """

    compression: Compression
    model: Any
    body: Any
    lm: Any
    handles: list[RemovableHandle]
    setting: Any
    steps: Steps
    compiled: Compiled | None = None

    def pixels(self, inputs: dict[str, Any]) -> list[str]:
        """Names of the arguments that hold pictures; empty tensors do not count."""
        given = {name: inputs.get(name) for name in self.compression.vision.pixel_names}
        return [name for name, pixels in given.items() if pixels is not None and len(pixels)]


def modules_of(model: nn.Module) -> Iterator[nn.Module]:
    """The module and all inside it.

    Raises:
        UserError: it is no module.
    """
    if not callable(getattr(model, "modules", None)):
        raise UserError(f"{type(model).__name__} is no model; give one from duet.load, or of transformers")
    return model.modules()


def attached(model: nn.Module) -> Attachment:
    """The attachment of a model or of the model inside a wrapper (peft, DDP).

    Raises:
        ValueError: nothing is attached.
    """
    for module in modules_of(model):
        if is_attached(module):
            return getattr(module, SLOT)
    raise ValueError(f"no compression is attached to this {type(model).__name__}; call duet.attach first")


def is_attached(model: nn.Module) -> bool:
    """Whether this very module has an attachment, not one inside it."""
    return hasattr(model, SLOT)


def exchange_compression(model: nn.Module, compression: Compression) -> None:
    """Run under other parts from the next call on, without touching a hook; for budgets that change in training.

    Args:
        model: with compression attached, wrapped or not.
        compression: for the same model.
    """
    attached(model).compression = compression


def reads_labels(model: nn.Module, inputs: dict[str, Any]) -> bool:
    """Whether the engine computes a call's loss: compression is attached, and there are pictures.

    It then takes the keyword argument `only_targets`: the head runs only at tokens that predict a label. The default is
    so in training.
    """
    return is_attached(model) and bool(getattr(model, SLOT).pixels(inputs))
