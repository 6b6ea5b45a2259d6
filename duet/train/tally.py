"""What a training has worked off: rows, tokens of each kind, operations, and where the time went.

Operations follow `duet/budget/cost.py`, with causal attention, the head at the tokens that predict a label, and:

    decoder      forward, and backward once for the inputs and once for the weights (if they are trained); once more
                 forward with gradient checkpointing
    projector    3 passes
    tower        1 pass if it is frozen, else 3 (4 with checkpointing); none for a picture whose features are kept
    a teacher    1 pass through everything, with all visual tokens
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from duet.budget import Backbone, Budget
from duet.budget.cost import layer_flops, tower_flops
from duet.data.encode import IGNORED
from duet.train.ranks import total

#: Counted by each process for its own rows, and summed over all. `visual_seen`: averaged over the layers.
COUNTS = ("rows", "pictures", "text_tokens", "padding", "labels", "visual_tokens", "visual_seen", "stand_ins", "flops")
#: Seconds by kind of work; `training` is everything else.
TIMES = ("waiting", "saving", "evaluating")


@dataclass(frozen=True)
class Passes:
    """How often a training runs each part, forward and backward, for one row."""

    decoder: int
    projector: int
    tower: int
    head: int = 3

    @classmethod
    def of(cls, model: nn.Module, checkpointing: bool) -> Passes:
        """From what is trained; names as in transformers: towers are `vision_tower`, `..._tower` or `visual`."""
        learned = {name for name, value in model.named_parameters() if value.requires_grad}
        tower = any("tower" in name or ("visual." in name and "merger" not in name) for name in learned)
        decoder = any("language_model" in name and "lora_" not in name for name in learned)
        again = int(checkpointing)
        return cls(2 + decoder + again, 3 + again, 3 + again if tower else 1)


#: Of a model that only answers.
FORWARD = Passes(1, 1, 1, 1)


@lru_cache(maxsize=4096)
def row_flops(backbone: Backbone, budget: Budget, text: int, visual: int, labels: int, passes: Passes) -> int:
    """Operations of one row in training.

    Args:
        backbone: sizes.
        budget: of the compression; an empty one without.
        text: tokens other than visual ones.
        visual: placeholders of its pictures and videos.
        labels: tokens to predict.
        passes: see `Passes`.
    """
    decoder = backbone.decoder
    head = passes.head * 2 * decoder.width * decoder.vocabulary * labels
    if not visual:
        counts, entered = (0,) * decoder.layers, 0
    else:
        model, _, _ = _prompt(backbone, visual)
        counts, entered = budget.tokens_per_layer(model), budget.entered(model)
    tokens = [text + count for count in counts]
    layers = sum(layer_flops(decoder, each, each * (each + 1) // 2) for each in tokens)
    projected = visual if backbone.projects_first else entered
    projector = projected * sum(2 * inputs * outputs for inputs, outputs in backbone.projector)
    encoded = encoding_flops(backbone, budget, visual)
    return passes.decoder * layers + passes.projector * projector + passes.tower * encoded + head


@lru_cache(maxsize=4096)
def encoding_flops(backbone: Backbone, budget: Budget, visual: int) -> int:
    """Operations of the tower for a row's pictures; without compression the stock model runs layers nobody reads."""
    if not visual:
        return 0
    _, units, size = _prompt(backbone, visual)
    unread = backbone.tower.unread if budget == Budget() else 0
    tower = replace(backbone.tower, layers=backbone.tower.layers + unread, unread=0)
    return units * tower_flops(tower, size, backbone.cls)


@lru_cache(maxsize=4096)
def seen(backbone: Backbone, budget: Budget, visual: int) -> float:
    """Visual tokens of a row that a decoder layer sees on average, of so many placeholders."""
    return budget.average(_prompt(backbone, visual)[0]) if visual else 0.0


def _prompt(backbone: Backbone, visual: int) -> tuple[Backbone, int, int]:
    """The backbone for a prompt of so many placeholders, its pictures and their size."""
    if backbone.patches is None:
        return backbone.with_patches(visual, 1), 1, visual
    size = backbone.patches
    units = max(round(visual / (size + backbone.cls_enters)), 1)
    return backbone.with_patches(size, units), units, size


class Tally:
    """Counts of this process, by name in `COUNTS`, and times.

    Args:
        backbone: sizes; None for a model without known sizes, whose operations are not counted.
        passes: see `Passes`.
        placeholders: token ids of pictures and videos.
    """

    def __init__(self, backbone: Backbone | None, passes: Passes, placeholders: Sequence[int]) -> None:
        self.backbone = backbone
        self.passes = passes
        self.placeholders = tuple(placeholders)
        self.own = dict.fromkeys(COUNTS, 0.0)
        self.everyone = dict(self.own)
        self.seconds = dict.fromkeys(TIMES, 0.0)
        self._started: float | None = None
        self._within = False
        self._tower = 0  # operations of the last micro-batch

    def start(self) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def elapsed(self) -> dict[str, float]:
        """Seconds since `start`, by kind of work."""
        whole = 0.0 if self._started is None else time.perf_counter() - self._started
        return {"training": whole - sum(self.seconds.values()), **self.seconds}

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Count the time inside the block as `kind`, unless it is inside such a block already."""
        if self._within:
            yield
            return
        started, self._within = time.perf_counter(), True
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - started
            self._within = False

    def add(
        self, batch: Mapping[str, Tensor], budget: Budget, stand_ins: int = 0, teacher: Backbone | None = None
    ) -> None:
        """Count a micro-batch.

        Args:
            batch: `input_ids`, `attention_mask` and `labels`, each `[B, T]`, and pixels.
            budget: under which it runs.
            stand_ins: rows at its end that are only there for other processes.
            teacher: sizes of the model that teaches this batch; `self.backbone` if it is the trained one.
        """
        ids, valid = batch["input_ids"], batch["attention_mask"].bool()
        marks = sum((ids == each for each in self.placeholders), start=ids != ids) & valid
        numbers = zip(
            valid.sum(1).tolist(),
            marks.sum(1).tolist(),
            (batch["labels"][:, 1:] != IGNORED).sum(1).tolist(),
            strict=True,
        )
        own, rows = self.own, len(ids) - stand_ins
        self._tower = 0
        for place, (tokens, visual, labels) in enumerate(numbers):
            if self.backbone is not None:
                own["flops"] += row_flops(self.backbone, budget, tokens - visual, visual, labels, self.passes)
                self._tower += self.passes.tower * encoding_flops(self.backbone, budget, visual)
            if teacher is not None:
                own["flops"] += row_flops(teacher, Budget(), tokens - visual, visual, labels, FORWARD)
                self._tower += encoding_flops(teacher, Budget(), visual) if teacher is self.backbone else 0
            if place >= rows:
                own["stand_ins"] += 1
                continue
            own["text_tokens"] += tokens - visual
            own["labels"] += labels
            own["visual_tokens"] += visual
            own["pictures"] += visual > 0
            own["visual_seen"] += visual if self.backbone is None else seen(self.backbone, budget, visual)
            own["padding"] += ids.shape[1] - tokens
        own["rows"] += rows

    def spare(self, kept: int, encoded: int) -> None:
        """Take back the tower's operations for pictures of the last micro-batch whose features were kept.

        Args:
            kept, encoded: numbers of pictures; those of different sizes count alike.
        """
        if kept:
            self.own["flops"] -= round(self._tower * kept / (kept + encoded))

    def share(self, device: Any) -> None:
        """Sum over all processes; each must call this."""
        self.everyone = dict(zip(COUNTS, total(list(self.own.values()), device), strict=True))
