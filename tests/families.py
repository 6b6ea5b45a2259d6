"""The tiny models of all families in one table, for what has to hold on each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import duet
from duet.budget import Budget
from duet.method_table import find_method
from tests import tiny_llava, tiny_llava_next, tiny_qwen, tiny_qwen3, tiny_video_llava


@dataclass(frozen=True)
class Family:
    """One tiny model and its prompts.

    Attributes:
        build: a fresh model, always the same.
        rows: with answers; one of them has no picture, and they differ in length.
        collate: rows, side, labels -> batch.
        vision: names of the towers and, last, of what projects their features.
        words: tokens that are words; the others are placeholders and their like, which no answer may hold.
        budget: of both stages.
    """

    build: Callable[[], Any]
    rows: list[Any]
    collate: Callable[..., dict[str, Tensor]]
    vision: tuple[str, ...]
    words: int
    budget: Budget

    def attach(self, model: Any, method: str = "duet", **switches: str) -> Any:
        """Attach a method with its part of the budget, and return the model."""
        stages = find_method(method).stages
        budget = None if not stages else self.budget if len(stages) == 2 else self.budget.only(stages[0])
        return duet.attach(model, method, budget, **switches)

    @property
    def prompts(self) -> list[Any]:
        """The rows without their answers."""
        return [self.prompt_of(row) for row in self.rows]

    def prompt_of(self, row: Any) -> Any:
        """A row without its answer."""
        asked = row.labels == -100
        return type(row)(**{**vars(row), "ids": row.ids[asked], "labels": row.labels[asked]})

    def answered(self, row: Any, new: Tensor) -> Any:
        """A prompt with this answer."""
        return type(row)(
            **{
                **vars(row),
                "ids": row.ids.new_tensor([*row.ids, *new]),
                "labels": row.labels.new_tensor([*row.labels, *new]),
            }
        )


def _qwen(model: str) -> Family:
    rows = tiny_qwen.mixed_rows(answer=2)
    vision = ("model.visual", "model.visual.merger")
    tied = model == "qwen2_vl"
    return Family(
        lambda: tiny_qwen.tiny_qwen(model, tied), rows, tiny_qwen.collate, vision, tiny_qwen.END, tiny_qwen.BUDGET
    )


FAMILIES = {
    "llava": Family(
        tiny_llava.tiny_llava,
        [
            tiny_llava.make_row(pictures, text, seed=seed)
            for seed, (pictures, text) in enumerate([(1, 6), (2, 3), (0, 4)])
        ],
        tiny_llava.collate,
        ("model.vision_tower", "model.multi_modal_projector"),
        tiny_llava.IMAGE,
        tiny_llava.BUDGET,
    ),
    "llava_next": Family(
        tiny_llava_next.tiny_llava_next,
        [tiny_llava_next.make_row(*sizes, seed=len(sizes)) for sizes in ([(50, 90)], [], [(90, 90), (30, 20)])],
        tiny_llava_next.collate,
        ("model.vision_tower", "model.multi_modal_projector"),
        tiny_llava_next.IMAGE,
        tiny_llava.BUDGET,
    ),
    "videollava": Family(
        tiny_video_llava.tiny_video_llava,
        [tiny_video_llava.make_row(kinds, seed=seed) for seed, kinds in enumerate(("v", "", "pvp", "pp"))],
        tiny_video_llava.collate,
        ("model.image_tower", "model.video_tower", "model.multi_modal_projector"),
        tiny_video_llava.IMAGE,
        tiny_qwen.BUDGET,
    ),
    "qwen2_5_vl": _qwen("qwen2_5_vl"),
    "qwen2_vl": _qwen("qwen2_vl"),
    "qwen3_vl": Family(
        tiny_qwen3.tiny_qwen3,
        tiny_qwen3.mixed_rows(answer=2),
        tiny_qwen3.collate,
        ("model.visual", "model.visual.merger"),
        tiny_qwen.END,
        tiny_qwen3.BUDGET,
    ),
}
