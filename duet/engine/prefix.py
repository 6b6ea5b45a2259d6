"""The part of a prompt that all questions about its pictures share, and a batch of such parts.

A *prefix* is a prompt up to the end of its last picture. Attention is causal, so nothing in it depends on the text that
follows, up to the layer in which that text first ranks visual tokens: the features after stage 1, the keys and values
of the layers before, and the hidden states that enter that layer. Without stage 2 that is the whole stack.
`duet/engine/reading.py` makes prefixes, `duet/engine/resume.py` goes on from them with questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from duet.engine.proportional import added
from duet.engine.tokens import Tokens
from duet.types import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from duet.engine.trace import Trace


@dataclass(frozen=True)
class Prefix:
    """A prefix of P prompt columns, of which W hold a token, after the first layers. Batch dimension 1 everywhere.

    Attributes:
        ids: `[1, P]` on the host.
        tokens: the W tokens at the boundary that they have reached.
        cached: keys and values of each layer before, `[1, H, W, d]`.
        layout: of the P columns.
        entered: visual tokens that entered the language model.
        trace: of stage 1.
        embeddings: `[1, P, D]` input of the language model, if the pruner needs it.
    """

    ids: Tensor
    tokens: Tokens
    cached: tuple[tuple[Tensor, Tensor], ...]
    layout: Layout
    entered: int
    trace: Trace
    embeddings: Tensor | None = None

    @property
    def width(self) -> int:
        """W."""
        return self.tokens.columns.shape[1]

    @property
    def columns(self) -> int:
        """P."""
        return self.layout.valid.shape[1]


class Rows:
    """The prefix of each row of a batch; rows about the same pictures share one.

    Args:
        prefixes: of the rows, all at the same boundary; None for a row without pictures.

    Attributes:
        width, columns: the largest W and P.
    """

    def __init__(self, prefixes: Sequence[Prefix | None]) -> None:
        self.prefixes = list(prefixes)
        found = {id(one): one for one in prefixes if one is not None}
        self.unique = list(found.values())
        order = {name: number for number, name in enumerate(found)}
        self._index = [order.get(id(one), -1) for one in prefixes]
        self.width = max(one.width for one in self.unique)
        self.columns = max(one.columns for one in self.unique)
        self.split = len(self.unique[0].cached)

    @property
    def padded(self) -> bool:
        """Whether any row has padding in its prefix."""
        return any(one is None or one.width < self.width for one in self.prefixes)

    def stack(self, read: Callable[[Prefix], Tensor], dim: int, length: int, left: bool = True) -> Tensor:
        """One tensor of each row's prefix, padded to `length` in dimension `dim`; the batch is the first dimension.

        Rows of one prefix are a view.
        """
        parts = []
        for one in self.unique:
            value = read(one)
            missing = length - value.shape[dim]
            sides = (missing, 0) if left else (0, missing)
            parts.append(pad(value, (*(0, 0) * (value.ndim - 1 - dim), *sides)) if missing else value)
        if len(parts) == 1 and -1 not in self._index:
            return parts[0].expand(len(self._index), *parts[0].shape[1:])
        if -1 in self._index:
            parts.append(torch.zeros_like(parts[0]))
        whole = torch.cat(parts)
        index = [len(parts) - 1 if number < 0 else number for number in self._index]
        return whole.index_select(0, torch.tensor(index).to(whole.device, non_blocking=True))

    def valid(self, device: torch.device) -> Tensor:
        """`[B, W]` bool, False at padding."""
        widths = torch.tensor([0 if one is None else one.width for one in self.prefixes])
        marks = torch.arange(self.width) >= self.width - widths[:, None]
        return marks.to(device, non_blocking=True)

    def tokens(self, first: Tensor) -> Tokens:
        """The tokens of all rows.

        Args:
            first: `[B, 1]`, the prompt column of each row's first token.
        """
        columns = self.stack(lambda one: one.tokens.columns, 1, self.width)
        axes = self.unique[0].tokens.positions.ndim == 3
        positions = self.stack(
            lambda one: one.tokens.positions.transpose(0, 1) if axes else one.tokens.positions, 1 + axes, self.width
        )
        return Tokens(
            hidden=self.stack(lambda one: one.tokens.hidden, 1, self.width),
            columns=columns + first.to(columns.device),
            valid=self.valid(columns.device),
            positions=positions.transpose(0, 1) if axes else positions,
            padded=self.padded,
            left=True,
            deep=tuple(
                self.stack(lambda one, level=level: one.tokens.deep[level], 1, self.width)  # type: ignore[misc]
                for level in range(len(self.unique[0].tokens.deep))
            ),
        )

    def layout(self, first: Tensor, columns: int, valid: Tensor | None = None) -> Layout:
        """Their columns in prompts of `columns` columns; `valid [B, T]` is False at padding, None without padding."""
        device = first.device
        place = torch.arange(columns, device=device) - first
        sizes = torch.tensor([[0 if one is None else one.columns] for one in self.prefixes])
        inside = (place >= 0) & (place < sizes.to(device, non_blocking=True))
        place = place.clamp(0, self.columns - 1)

        def spread(name: str) -> Tensor:
            own = self.stack(lambda one: getattr(one.layout, name), 1, self.columns, left=False)
            return own.to(device).gather(1, place) & inside

        placeholder, filled, visual = (spread(name) for name in ("placeholder", "filled", "visual"))
        whole = torch.ones_like(inside) if valid is None else valid
        units = [[] if one is None else one.layout.units[0] for one in self.prefixes]
        counts: Tensor | None = None
        if self.unique[0].layout.sizes is not None:
            known = self.stack(lambda one: _known(one.layout.sizes), 1, self.columns, left=False)
            counts = known.to(device).gather(1, place).where(inside, 1)
        return Layout(placeholder, filled, visual, whole, units, counts)

    def bias(self) -> Tensor | None:
        """`[B, W]`, added to the attention logits of the prefixes' tokens before any is dropped; None for nothing."""
        if self.unique[0].layout.sizes is None:
            return None
        return self.stack(lambda one: _known(added(one.layout.sizes, one.tokens)), 1, self.width)

    def embeddings(self, first: Tensor, columns: int) -> Tensor | None:
        """`[B, columns, D]` input of the language model at the prefixes, zero elsewhere; None if not needed."""
        if self.unique[0].embeddings is None:
            return None
        own = self.stack(lambda one: one.embeddings, 1, self.columns, left=False)  # type: ignore[arg-type, return-value]
        place = (torch.arange(self.columns, device=own.device) + first.to(own.device)).clamp_max(columns - 1)
        sizes = torch.tensor([[0 if one is None else one.columns] for one in self.prefixes])
        real = torch.arange(self.columns, device=own.device) < sizes.to(own.device, non_blocking=True)
        whole = own.new_zeros(len(own), columns, own.shape[-1])
        index = place[..., None].expand_as(own)
        return whole.scatter_add(1, index, own * real[..., None])


@dataclass(frozen=True)
class Resumed:
    """Questions whose prefixes were read before.

    Attributes:
        rows: their prefixes.
        first: `[B, 1]`, the prompt column of each row's first token.
        columns, valid: `[B, S]`, prompt columns of the questions' tokens; bool, False at padding.
        padded: whether a question is shorter than others.
        lengths: tokens of each row, prefix and question.
    """

    rows: Rows
    first: Tensor
    columns: Tensor
    valid: Tensor
    padded: bool
    lengths: list[int]


def _known(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
