"""The output of a frozen tower, kept by the hash of each picture's pixels, so a picture is encoded once.

A training run announces the pictures of a step with `Features.about`; inside, the tower runs only for those that are
not there. What is kept is what the tower returned, in its dtype.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

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
    """Kept output of one tower, within a limit of bytes.

    Args:
        tower: its output; it must not change.
        limit: bytes; pictures that come after it is reached are encoded every time.
        shelf: where it is kept.

    Attributes:
        hits, misses: pictures that were there, or had to be encoded.
        nbytes: bytes of what this process has kept.
    """

    def __init__(self, tower: nn.Module, limit: float, shelf: Shelf) -> None:
        self.tower, self.limit, self.shelf = tower, limit, shelf
        self.hits = self.misses = self.nbytes = 0
        self._names: list[str] = []
        self._compared = self._full = self._told = False

    @contextmanager
    def about(self, keys: Tensor | None) -> Iterator[None]:
        """The tower's next batch inside the block is of these pictures, see `picture_keys`; None: it has none."""
        self._names = [] if keys is None else [f"{high & MASK:016x}{low & MASK:016x}" for high, low in keys.tolist()]
        token = _IN_USE.set(self)
        try:
            yield
        finally:
            _IN_USE.reset(token)

    def read(
        self, kind: str, pixels: Tensor, device: torch.device, encode: Callable[[Tensor], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The tower's output for the announced pictures.

        Args:
            kind: what is read of the tower; other kinds of one picture are kept beside each other.
            pixels: `[P, ...]`.
            device: where the output belongs.
            encode: runs the tower; its tensors are `[P, ...]`.

        Raises:
            ValueError: these are other pictures than were announced.
        """
        if len(self._names) != len(pixels):
            raise ValueError(f"{len(pixels)} pictures in the tower, but {len(self._names)} were announced")
        names = [f"{name}-{kind}" for name in self._names]
        found = [self.shelf.get(name) for name in names]
        missing = [place for place, parts in enumerate(found) if parts is None]
        self.hits, self.misses = self.hits + len(names) - len(missing), self.misses + len(missing)
        rows: list[Mapping[str, Tensor]] = [parts or {} for parts in found]
        if missing:
            fresh = encode(pixels if len(missing) == len(names) else pixels[missing])
            fresh = {name: value.detach() for name, value in fresh.items()}
            for row, place in enumerate(missing):
                rows[place] = {name: value[row] for name, value in fresh.items()}
                self._keep(names[place], rows[place])
        joined = {name: torch.stack([row[name].to(device) for row in rows]) for name in rows[0]}
        if not missing and not self._compared:
            self._compare(joined, encode(pixels))
        return joined

    def _compare(self, kept: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> None:
        """Once a run: some kernels round a picture differently in another batch, so say whether these do."""
        self._compared = True
        gap = max(float((kept[name].double() - fresh[name].double()).abs().max()) for name in kept)
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
    return features if features is not None and features.tower is tower else None
