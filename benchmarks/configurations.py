"""What is compared: methods at equal average visual tokens, what they attach, and the operations that they cost.

The baseline is the stock model with nothing attached. It runs all layers of its tower (24 of CLIP); with anything
attached the tower stops after the layer that the projector reads (23; Qwen's projector reads the last). Operations are
counted as they run, by the formulas of `duet.budget.cost`, which leave out norms, softmax, scoring and merging.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import duet
from duet.budget import Backbone, Budget
from duet.errors import UserError
from duet.method_table import find_method

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.families import Prompt

BASELINE = "none"


@dataclass(frozen=True)
class Configuration:
    """A method under a budget.

    Attributes:
        method: a name of `duet.methods()`; wanted: the average of visual tokens that was asked for, None for the
            baseline.
        budget: what the method gets for it; backbone: sizes of the model as it runs under this method.
    """

    method: str
    wanted: int | None
    budget: Budget
    backbone: Backbone

    @property
    def name(self) -> str:
        """For tables and progress: `duet 192`."""
        return self.method if self.wanted is None else f"{self.method} {self.wanted}"

    @property
    def average(self) -> float:
        """Mean over the decoder layers of the visual tokens that enter the layer."""
        return self.budget.average(self.backbone)

    def prefill_flops(self, text: int, *, causal: bool = False) -> int:
        """Operations of one prompt, from pixels to the first logits; `causal`: see `count_flops`."""
        return self.budget.flops(self.backbone, text=text, causal=causal).total

    def training_flops(self, text: int, answer: int, *, causal: bool = False) -> int:
        """Operations of a training step on one row: forward, and twice as much backward behind the frozen tower.

        The stock model computes logits at every position; with compression they are computed for the answer only.
        """
        flops = self.budget.flops(self.backbone, text=text, causal=causal)
        head = 2 * self.backbone.decoder.width * self.backbone.decoder.vocabulary
        positions = answer if self.wanted is not None else text + self.backbone.full
        return flops.tower + 3 * (flops.projector + flops.prefill + (positions - 1) * head)

    @contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        """The model under this method inside the block; stock again behind it."""
        if self.wanted is None:
            yield
            return
        duet.attach(model, self.method, self.budget)
        try:
            yield
        finally:
            duet.detach(model)


def configurations(model: Any, prompt: Prompt, methods: Sequence[str], averages: Sequence[int]) -> list[Configuration]:
    """The baseline, and every method at every average.

    Raises:
        UserError: unknown method, or an average that a method cannot reach on this model.
    """
    sizes = Backbone.from_config(model.config).with_patches(prompt.patches, prompt.units)
    backbone = replace(sizes, name="this shape")
    found = [Configuration(BASELINE, None, Budget(), backbone)]
    for name in methods:
        method = find_method(name)
        if method.name == BASELINE:
            continue
        if not averages:
            raise UserError(f"{name} needs --budgets: average visual tokens, e.g. 192,128,64")
        found += [
            Configuration(name, average, Budget.solve(average, backbone, schedule=method.schedule), backbone)
            for average in averages
        ]
    return found
