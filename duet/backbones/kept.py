"""The output of frozen towers, kept by the hash of each picture's pixels, so a picture is encoded once.

A training run announces the pictures of a step with `Features.about`; inside, the tower runs only for those that are
not there. What is kept is what the tower returned, in its dtype.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

#: Bytes of a hash, as two 64-bit integers in a batch.
DIGEST = 16


def picture_keys(pixels: Tensor) -> Tensor:
    """A hash of the pixels of each picture.

    Args:
        pixels: `[P, ...]`, on the host.

    Returns:
        `[P, 2]` long.
    """
    rows = pixels.contiguous().flatten(1).view(torch.uint8) if len(pixels) else pixels.new_zeros(0, 0)
    digests = b"".join(hashlib.blake2b(row.numpy().data, digest_size=DIGEST).digest() for row in rows)
    return torch.frombuffer(bytearray(digests), dtype=torch.int64).view(-1, 2) if digests else torch.zeros(0, 2).long()


def media_keys(pixels: Tensor, grid: Tensor) -> Tensor:
    """A hash of each picture or video of Qwen, `[M, 2]` long.

    Args:
        pixels: `[patches, values]`, packed, on the host.
        grid: `[M, 3]` patches of each.
    """
    found = []
    for rows, size in zip(pixels.split(grid.prod(-1).tolist()), grid, strict=True):
        shape = size.long().view(torch.uint8)
        whole = torch.cat([shape, rows.contiguous().flatten().view(torch.uint8)])
        found.append(picture_keys(whole[None]))
    return torch.cat(found) if found else torch.zeros(0, 2).long()


class Shelf(Protocol):
    """Where kept tensors are, by name; on the host."""

    def get(self, name: str) -> dict[str, Tensor] | None:
        """The tensors of this name, None if there are none."""

    def put(self, name: str, parts: dict[str, Tensor]) -> None:
        """Keep tensors under a name."""


class Memory:
    """Tensors in the host's memory."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Tensor]] = {}

    def get(self, name: str) -> dict[str, Tensor] | None:
        """See `Shelf`."""
        return self._kept.get(name)

    def put(self, name: str, parts: dict[str, Tensor]) -> None:
        """See `Shelf`."""
        self._kept[name] = parts


class Features:
    """Kept output of a model's towers, within a limit of bytes.

    Args:
        towers: their output; they must not change.
        limit: bytes; pictures that come after it is reached are encoded every time.
        shelf: where it is kept.

    Attributes:
        hits, misses: pictures (crops, frames, videos of Qwen) that were there, or had to be encoded.
        nbytes: bytes of what this process has kept.
    """

    def __init__(self, towers: Sequence[nn.Module], limit: float, shelf: Shelf) -> None:
        self.towers, self.limit, self.shelf = tuple(towers), limit, shelf
        self.hits = self.misses = self.nbytes = 0
        self._calls: dict[nn.Module, deque[list[str]]] = {}
        self._compared = self._full = self._told = False

    @contextmanager
    def about(self, calls: Sequence[tuple[nn.Module, Tensor]]) -> Iterator[None]:
        """Inside the block a step calls these towers with pictures of these keys, see `picture_keys`.

        A tower that is called several times has its calls in order; the next step of the block begins with the first.
        """
        self._calls = {}
        for tower, keys in calls:
            own = f"{self.towers.index(tower)}-" if len(self.towers) > 1 else ""
            names = [f"{own}{high & MASK:016x}{low & MASK:016x}" for high, low in keys.tolist()]
            self._calls.setdefault(tower, deque()).append(names)
        token = _IN_USE.set(self)
        try:
            yield
        finally:
            _IN_USE.reset(token)

    def read(
        self,
        tower: nn.Module,
        kind: str,
        count: int,
        device: torch.device,
        encode: Callable[[list[int]], Sequence[Mapping[str, Tensor]]],
    ) -> list[dict[str, Tensor]]:
        """A tower's output for each of the announced pictures.

        Args:
            tower: one of the towers.
            kind: what is read of it; other kinds of one picture are kept beside each other.
            count: pictures of this call.
            device: where the output belongs.
            encode: runs the tower on the pictures at some places, ascending.

        Raises:
            ValueError: these are other pictures than were announced.
        """
        calls = self._calls.get(tower) or deque([[]])
        announced = calls[0]
        calls.rotate(-1)
        if len(announced) != count:
            raise ValueError(f"{count} pictures in the tower, but {len(announced)} were announced")
        names = [f"{name}-{kind}" for name in announced]
        found: list[Any] = [self.shelf.get(name) for name in names]
        missing = [place for place, parts in enumerate(found) if parts is None]
        self.hits, self.misses = self.hits + count - len(missing), self.misses + len(missing)
        if missing:
            for place, parts in zip(missing, encode(missing), strict=True):
                found[place] = {name: value.detach() for name, value in parts.items()}
                self._keep(names[place], found[place])
        rows = [{name: value.to(device) for name, value in parts.items()} for parts in found]
        if rows and not missing and not self._compared:
            self._compare(rows, encode(list(range(count))))
        return rows

    def _compare(self, kept: Sequence[Mapping[str, Tensor]], fresh: Sequence[Mapping[str, Tensor]]) -> None:
        """Once a run: some kernels round a picture differently in another batch, so say whether these do."""
        self._compared = True
        gap = max(
            float((old[name].double() - new[name].double()).abs().max())
            for old, new in zip(kept, fresh, strict=True)
            for name in old
        )
        if gap:
            logger.warning(
                "the tower rounds a picture differently in another batch (by up to %.2g): losses with "
                "training.cache_features differ by as little from those without it",
                gap,
            )

    def _keep(self, name: str, parts: Mapping[str, Tensor]) -> None:
        size = sum(value.numel() * value.element_size() for value in parts.values())
        if not self._told:
            self._told = True
            logger.info("a picture's features take %d bytes; %d pictures fit", size, self.limit // size)
        if self.nbytes + size > self.limit:
            if not self._full:
                logger.warning("training.cache_features_gb is full after %d bytes: the rest is not kept", self.nbytes)
            self._full = True
            return
        if self.shelf.get(name) is None:  # a batch may hold a picture twice
            self.shelf.put(name, {key: value.to("cpu", copy=True).contiguous() for key, value in parts.items()})
            self.nbytes += size


#: Two's complement of 64 bits, for names of files.
MASK = (1 << 64) - 1

_IN_USE: ContextVar[Features | None] = ContextVar("duet_kept_features", default=None)


def features_of(tower: nn.Module) -> Features | None:
    """What is kept of this tower, inside a block of `Features.about`."""
    features = _IN_USE.get()
    return features if features is not None and any(one is tower for one in features.towers) else None
