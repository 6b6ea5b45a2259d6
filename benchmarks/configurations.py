"""The configurations compared: methods at equal average visual tokens, with their operations.

The baseline is the stock model with nothing attached. It runs all layers of its tower (24 of CLIP); with compression
attached the tower stops after the layer that the projector reads (23; Qwen's projector reads the last). Operations are
counted as they run, with the formulas of `duet.budget.cost`, which leave out norms, softmax, scoring and merging.
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
    """A method with a budget.

    Attributes:
        method: a name of `duet.methods()`; wanted: the requested average of visual tokens, None for the baseline.
        budget: the method's budget for it; backbone: sizes of the model as it runs with this method.
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
        """Number of visual tokens entering a decoder layer, averaged over the layers."""
        return self.budget.average(self.backbone)

    def prefill_flops(self, text: int, *, causal: bool = False) -> int:
        """Operations of one prompt, from pixels to the first logits; `causal`: see `count_flops`."""
        return self.budget.flops(self.backbone, text=text, causal=causal).total

    def training_flops(self, text: int, answer: int, *, frozen: bool = False, causal: bool = False) -> int:
        """Operations of a training step on one row: forward, and twice as many backward after the frozen tower.

        With a frozen decoder as many backward as forward, since its weights have no gradients; adapters on it are not
        counted. The stock model computes logits at every position; with compression only those of the answer are
        computed.
        """
        flops = self.budget.flops(self.backbone, text=text, causal=causal)
        head = 2 * self.backbone.decoder.width * self.backbone.decoder.vocabulary
        positions = answer if self.wanted is not None else text + self.backbone.full
        return flops.tower + 3 * flops.projector + (2 if frozen else 3) * (flops.prefill + (positions - 1) * head)

    @contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        """Attach this method inside the block; the model is stock again after it."""
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
