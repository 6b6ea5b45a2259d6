"""Cost of methods on a prompt: visual tokens per layer, FLOPs, KV cache, from `duet.budget`; nothing runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from duet.budget import Budget, resolve_budget
from duet.errors import UserError
from duet.method_table import find_method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duet.budget import Backbone

#: Name of the method that keeps all visual tokens.
ALL = "none"


@dataclass(frozen=True)
class Prompt:
    """The sizes that determine the cost of a prompt.

    Attributes:
        sizes: visual tokens of each picture, crop or frame.
        text: number of text tokens.
        cls: whether the CLS token of each enters the language model, where a stock model has it enter: Video-LLaVA's
            does for frames only.
    """

    sizes: tuple[int, ...]
    text: int
    cls: bool = True


@dataclass(frozen=True)
class Cost:
    """Cost of a method on a prompt.

    Attributes:
        method: its name.
        budget: its budget; None if there is none.
        layers: visual tokens that enter each layer of the language model.
        flops: up to the first token of the answer, including tower and projector.
        kv_bytes: keys and values of all layers after the prompt.
        problem: why there is no budget.
    """

    method: str
    budget: Budget | None
    layers: tuple[int, ...] = ()
    flops: int = 0
    kv_bytes: int = 0
    problem: str = ""

    @property
    def average(self) -> float:
        """Visual tokens that enter a layer, averaged over the layers."""
        return sum(self.layers) / len(self.layers) if self.layers else 0.0


def compare(
    methods: Sequence[str], average: float, backbone: Backbone, prompt: Prompt, bytes_per_value: int
) -> list[Cost]:
    """All visual tokens first, then each method at the same average.

    Args:
        methods: names, without the one that keeps all tokens.
        average: visual tokens that enter a layer, averaged over the layers.
        backbone: sizes of the model.
        prompt: its sizes.
        bytes_per_value: of the cache: 2 in half precision.

    Raises:
        UserError: an unknown method.
    """
    model = sized(backbone, prompt)
    found = []
    for name in (ALL, *methods):
        method = find_method(name)
        try:
            budget = resolve_budget(float(average), method.schedule, model, method=name)
            layers = budget.tokens_per_layer(model)
        except UserError as error:
            found.append(Cost(name, None, problem=str(error)))
            continue
        flops = budget.flops(model, text=prompt.text).total
        cache = sum(budget.kv_bytes(model, text=prompt.text, bytes_per_value=bytes_per_value))
        found.append(Cost(name, budget, layers, flops, cache))
    return found


def sized(backbone: Backbone, prompt: Prompt) -> Backbone:
    """The model on this prompt."""
    return replace(backbone.with_units(prompt.sizes), cls_enters=backbone.cls_enters and prompt.cls)
