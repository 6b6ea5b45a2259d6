"""LLaVA's sampler: batches of rows of similar length, text-only rows in separate batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class ModalityLengthSampler(Sampler[int]):
    """Yields indices so that each consecutive `batch_size` of them has one modality and similar lengths.

    Args:
        lengths: size of each row; only their order matters.
        has_image: whether each row has a picture.
        batch_size: rows per step over all devices.
        seed: with `epoch` (see `set_epoch`) determines the order.
    """

    def __init__(self, lengths: Sequence[int], has_image: Sequence[bool], batch_size: int, seed: int = 0) -> None:
        self.lengths = lengths
        self.has_image = has_image
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Reshuffle for the next pass over the data; the Trainer calls this."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        full: list[list[int]] = []
        rest: list[int] = []
        for modality in (True, False):
            rows = [index for index, value in enumerate(self.has_image) if value == modality]
            for batch in self._batches(rows, generator):
                if len(batch) == self.batch_size:
                    full.append(batch)
                else:
                    rest += batch
        order = torch.randperm(len(full), generator=generator).tolist()
        return iter([index for batch in order for index in full[batch]] + rest)

    def _batches(self, rows: list[int], generator: torch.Generator) -> list[list[int]]:
        """Shuffle, sort within windows of 50 batches, cut."""
        shuffled = [rows[place] for place in torch.randperm(len(rows), generator=generator).tolist()]
        window = 50 * self.batch_size
        batches = []
        for start in range(0, len(shuffled), window):
            part = sorted(shuffled[start : start + window], key=lambda index: self.lengths[index], reverse=True)
            batches += [part[place : place + self.batch_size] for place in range(0, len(part), self.batch_size)]
        # a short batch may only come at the end of a modality, where the next window would otherwise continue
        return sorted(batches, key=len, reverse=True)
