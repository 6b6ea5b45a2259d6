"""Stand-in pictures: a row without labels for a process whose batch lacks what another process' batch has.

Sharded training (ZeRO, FSDP) needs all processes to run the same modules in the same step: a batch of text on one
process and of pictures on another hangs or dies in the vision tower. The process without pictures then gets one more
row with the shortest picture of the data and nothing to learn from it, so it runs the same code, compression included.
Its loss and gradients are those of its own rows. No process gets one that does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from duet.data.collate import PER_TOKEN, join_pixels
from duet.data.encode import IGNORED
from duet.train.ranks import agree

#: Kinds of media, and the arguments that hold their pixels.
KINDS: dict[str, tuple[str, ...]] = {
    "image": ("pixel_values", "pixel_values_images"),
    "video": ("pixel_values_videos",),
}


class StandIns:
    """Adds stand-in rows to batches.

    Args:
        example: the shortest example with a kind of media (`image`, `video`).
        collate: examples -> batch.
        pad_token_id: of the collator.

    Attributes:
        added: stand-in rows of this process so far.
    """

    def __init__(
        self, example: Callable[[str], Any], collate: Callable[[Sequence[Any]], dict[str, Tensor]], pad_token_id: int
    ) -> None:
        self.example = example
        self.collate = collate
        self.pad_token_id = pad_token_id
        self.added = 0
        self._made: dict[str, dict[str, Tensor]] = {}

    def even_out(self, batches: list[dict[str, Tensor]], device: torch.device) -> list[dict[str, Tensor]]:
        """The batches of one step, each with a stand-in for every kind that only other processes have.

        Every process must call this with the same number of batches.
        """
        own = [[_has(batch, kind) for kind in KINDS] for batch in batches]
        anywhere = agree([float(has) for row in own for has in row], device)
        evened = []
        for number, batch in enumerate(batches):
            for place, kind in enumerate(KINDS):
                if anywhere[number * len(KINDS) + place] and not own[number][place]:
                    batch = self._append(batch, self._stand_in(kind))
                    self.added += 1
            evened.append(batch)
        return evened

    def _stand_in(self, kind: str) -> dict[str, Tensor]:
        if kind not in self._made:
            batch = dict(self.collate([self.example(kind)]))
            batch["labels"] = torch.full_like(batch["labels"], IGNORED)
            self._made[kind] = batch
        return self._made[kind]

    def _append(self, batch: Mapping[str, Tensor], row: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ids = batch["input_ids"]
        width = max(ids.shape[1], row["input_ids"].shape[1])
        joined: dict[str, Tensor] = {}
        for name in dict.fromkeys((*batch, *row)):
            if name not in PER_TOKEN:
                given = [part[name].to(ids.device) for part in (batch, row) if name in part]
                joined[name] = join_pixels(name, given)
                continue
            filling = self.pad_token_id if name == "input_ids" else PER_TOKEN[name]
            assert filling is not None
            parts = [
                part[name].to(ids.device) if name in part else torch.zeros_like(part["input_ids"], device=ids.device)
                for part in (batch, row)
            ]
            joined[name] = torch.cat(
                [torch.nn.functional.pad(part, (0, width - part.shape[1]), value=filling) for part in parts]
            )
        return joined


def shortest_example(dataset: Any, kind: str) -> Any:
    """The example of a data set with `rows` whose row has a kind of media and the least text."""
    fitting = [place for place, row in enumerate(dataset.rows) if (row.videos if kind == "video" else row.images)]
    return dataset[min(fitting, key=lambda place: dataset.rows[place].words)]


def _has(batch: Mapping[str, Tensor], kind: str) -> bool:
    return any(name in batch and len(batch[name]) > 0 for name in KINDS[kind])
