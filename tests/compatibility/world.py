"""What the features of `table.py` are tried on: a family, a method, and the recomputing reference."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tests.families import FAMILIES, Family
from tests.tiny_parts import recomputed

LOGITS = {"atol": 2e-4, "rtol": 0}
STEPS = 3


@cache
def stock_of(name: str) -> Any:
    """The shared stock model of a family; features copy it."""
    return FAMILIES[name].build()


@dataclass(frozen=True)
class World:
    """What a feature is tried on.

    Attributes:
        name: of the family.
        method: that is attached.
    """

    name: str
    method: str

    @property
    def family(self) -> Family:
        return FAMILIES[self.name]

    def stock(self) -> Any:
        """A separate model, nothing attached."""
        return copy.deepcopy(stock_of(self.name))

    def model(self) -> Any:
        """A separate model, compressed."""
        return self.attach(self.stock())

    def attach(self, model: Any) -> Any:
        return self.family.attach(model, self.method)

    @property
    def rows(self) -> list[Any]:
        """Two prompts with pictures, and one of words."""
        shown = [any("pixel" in key for key in self.family.collate([row])) for row in self.family.prompts]
        rows = list(zip(self.family.prompts, shown, strict=True))
        return [row for row, seen in rows if seen][:2] + [row for row, seen in rows if not seen][:1]

    def batch(self, rows: list[Any] | None = None) -> dict[str, Tensor]:
        return self.family.collate(rows or self.rows)

    def options(self) -> dict[str, Any]:
        """Greedy decoding of words."""
        others = [*range(self.family.words, stock_of(self.name).config.get_text_config().vocab_size)]
        return {
            "max_new_tokens": STEPS, "do_sample": False, "suppress_tokens": others, "output_logits": True,
            "return_dict_in_generate": True,
        }  # fmt: skip

    def words(self, rows: int, steps: int = STEPS) -> Tensor:
        return torch.randint(3, self.family.words, (rows, steps), generator=torch.Generator().manual_seed(1))

    def wanted(self, row: Any, new: Tensor, model: Any = None) -> Tensor:
        """Logits that predict each new token, from one forward over the whole sequence without a cache."""
        return recomputed(model or _reference(self), row, new, self.family.collate)

    def check(self, out: Any, rows: list[Any], model: Any = None, **tolerance: float) -> Any:
        """All logits of what `generate` returned, against recomputing."""
        start = out.sequences.shape[1] - len(out.logits)
        for number, row in enumerate(rows):
            found = torch.stack([logits[number] for logits in out.logits])
            wanted = self.wanted(row, out.sequences[number, start:], model)
            torch.testing.assert_close(found, wanted.float(), **(tolerance or LOGITS))
        return out

    def generate(self, model: Any, rows: list[Any] | None = None, **options: Any) -> Any:
        """Decode and check."""
        rows = rows or self.rows
        return self.check(model.generate(**self.batch(rows), **{**self.options(), **options}), rows)


@cache
def _reference(world: World) -> Any:
    return world.model()
