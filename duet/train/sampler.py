"""The order of rows. It follows from seed and epoch alone, so a resumed run continues where it stopped.

`modality_order` is LLaVA's rule (`llava/train/llava_trainer.py`, `LengthGroupedSampler`): rows of a step have one
modality and similar lengths, and every micro-batch of the step about the same sum of lengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from duet.data.rows import Row


class RowOrder(Sampler[int]):
    """Indices of all rows, in another order in each epoch.

    Args:
        lengths: of the rows, see `modality_order`; without them the order is random.
        rows: their number.
        batch_size: rows of a micro-batch.
        shares: micro-batches of a step: processes x accumulation.
        seed: with `epoch` (see `set_epoch`) determines the order.
    """

    def __init__(
        self, rows: int, seed: int = 0, lengths: Sequence[int] | None = None, batch_size: int = 1, shares: int = 1
    ) -> None:
        self.rows = rows
        self.seed = seed
        self.lengths = lengths
        self.batch_size = batch_size
        self.shares = shares
        self.epoch = 0

    def __len__(self) -> int:
        return self.rows

    def set_epoch(self, epoch: int) -> None:
        """Reshuffle for the next pass over the data; the Trainer calls this."""
        self.epoch = epoch

    def order(self, epoch: int) -> list[int]:
        """The rows of an epoch."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        if self.lengths is None:
            return torch.randperm(self.rows, generator=generator).tolist()
        return modality_order(self.lengths, self.batch_size, self.shares, generator)

    def rows_of_step(self, epoch: int, step: int) -> list[list[int]]:
        """The rows of the micro-batches of one step of an epoch, counted from 0.

        Process r of R takes micro-batches r, r + R, r + 2R, ... The last step is filled up from the start.
        """
        order, size = self.order(epoch), self.batch_size * self.shares
        found = [order[place % len(order)] for place in range(step * size, (step + 1) * size)]
        return [found[place : place + self.batch_size] for place in range(0, size, self.batch_size)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch))


def modality_order(
    lengths: Sequence[int],
    batch_size: int,
    shares: int,
    generator: torch.Generator,
    of_steps: torch.Generator | None = None,
) -> list[int]:
    """Rows in LLaVA's order.

    Args:
        lengths: words of each row, negative without a picture. None is 0.
        batch_size: rows of a micro-batch.
        shares: micro-batches of a step.
        generator: of all shuffles.
        of_steps: of the shuffle of the steps, if it is another one.

    Returns:
        Steps of one modality each, shuffled; at the end the incomplete step of each modality, together and by number.
    """
    whole = batch_size * shares
    pictures = [row for row, length in enumerate(lengths) if length > 0]
    texts = [row for row, length in enumerate(lengths) if length <= 0]
    if not pictures or not texts:
        steps = _steps(range(len(lengths)), lengths, whole, shares, of_steps or generator)
        return [row for step in steps for row in step]
    steps, last = [], []
    for rows in (pictures, texts):
        *full, rest = _steps(rows, [abs(length) for length in lengths], whole, shares, generator)
        steps += full
        last += rest
    order = torch.randperm(len(steps), generator=of_steps or generator).tolist()
    return [row for place in order for row in steps[place]] + sorted(last)


def _steps(
    rows: Sequence[int], lengths: Sequence[int], whole: int, shares: int, generator: torch.Generator
) -> list[list[int]]:
    """Shuffle rows, cut them into steps, sort each by length, and deal it out evenly."""
    shuffled = [rows[place] for place in torch.randperm(len(rows), generator=generator).tolist()]
    steps = [shuffled[start : start + whole] for start in range(0, len(shuffled), whole)]
    return [
        [
            row
            for share in _deal(sorted(step, key=lambda row: lengths[row], reverse=True), lengths, shares)
            for row in share
        ]
        for step in steps
    ]


def _deal(rows: list[int], lengths: Sequence[int], shares: int) -> list[list[int]]:
    """Equal numbers of rows with near-equal sums: the next row goes to the share with the smallest sum so far."""
    if len(rows) % shares:
        return [rows[start::shares] for start in range(shares)]
    size = len(rows) // shares
    dealt: list[list[int]] = [[] for _ in range(shares)]
    sums = [0.0] * shares
    for row in rows:
        place = sums.index(min(sums))
        dealt[place].append(row)
        sums[place] = math.inf if len(dealt[place]) == size else sums[place] + lengths[row]
    return dealt


def signed_length(row: Row) -> int:
    """LLaVA's length of a row: words of all messages, negative without pictures and videos."""
    return max(row.words, 1) * (1 if row.has_media else -1)
