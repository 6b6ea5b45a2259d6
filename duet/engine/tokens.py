"""The padded batch of tokens between two boundaries, and how it shrinks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from duet.edit import Edit
from duet.engine.compat import execution_device
from duet.ops.gather import close_gaps, compact_positions, take


@dataclass(frozen=True)
class Tokens:
    """The input of a decoder layer.

    Attributes:
        hidden: `[B, T, D]`.
        columns: `[B, T]` long, the original prompt column of each token.
        valid: `[B, T]` bool, False at padding.
        positions: `[B, T]` position ids, or `[A, B, T]` with several axes (M-RoPE).
        padded: whether any row has padding; known on the host, without waiting for the device.
        left: padding is on the left side.
        deep: `[B, T, D]` each, added after the following layers in turn (DeepStack).
        lengths: real tokens of each row, if the host knows them.
        bounds: `lengths` are those of a compiled prompt: the most that a row has.
    """

    hidden: Tensor
    columns: Tensor
    valid: Tensor
    positions: Tensor
    padded: bool
    left: bool
    deep: tuple[Tensor, ...] = ()
    lengths: list[int] | None = None
    bounds: bool = False

    @property
    def mask(self) -> Tensor | None:
        """The 2-D attention mask for Hugging Face's mask helpers; None without padding."""
        return self.valid if self.padded else None

    def at(self, prompt: Tensor) -> Tensor:
        """Read a per-column tensor of the prompt, `[B, T0]`, at these tokens; padding reads False or 0."""
        read = prompt.to(self.columns.device).gather(1, self.columns)
        return read & self.valid if read.dtype == torch.bool else read * self.valid

    def before(self, module: nn.Module) -> Tokens:
        """The same tokens on the device where accelerate runs a module; without its hooks, on that of `hidden`."""
        device = execution_device(module) or self.hidden.device
        names = ("hidden", "columns", "valid", "positions")
        moved = {name: getattr(self, name).to(device) for name in names}
        return replace(self, **moved, deep=tuple(one.to(device) for one in self.deep))

    def through(self, hidden: Tensor) -> Tokens:
        """The same tokens after a layer, given its output `[B, T, D]`, with the deep features added there."""
        if not self.deep:
            return replace(self, hidden=hidden)
        return replace(self, hidden=hidden + self.deep[0], deep=self.deep[1:])

    def keep(self, keep: Tensor, lengths: list[int] | None = None) -> Move:
        """The move that keeps the marked tokens, `[B, T]` bool; padding is dropped even if marked.

        `lengths` are their numbers, if the host knows them; otherwise it waits for the device.
        """
        keep = keep & self.valid
        lengths = keep.sum(-1).tolist() if lengths is None else lengths
        index, valid = close_gaps(keep, max(lengths), self.left)
        return Move(index, valid, self.bounds or min(lengths) < max(lengths), lengths=lengths)

    def edit(self, edit: Edit, candidates: Tensor, lengths: list[int] | None = None) -> Move:
        """The move of an edit of the candidates, `[B, T]` bool; `lengths` as in `keep`, for edits that do not merge.

        Outputs take the places of the tokens that they represent; new ones (share 0) follow the row's last output that
        is not new, in order.
        """
        real = edit.kept >= 0
        if not edit.merges:
            return self.keep(self.valid & ~candidates | edit.marked & candidates, lengths)
        new = real & (edit.share == 0) if edit.share is not None else torch.zeros_like(real)
        last = torch.where(real & ~new, edit.kept, -1).amax(1, keepdim=True)
        places = torch.arange(candidates.shape[1], device=candidates.device).expand_as(candidates)
        never = 2 * candidates.shape[1] + 2
        others = torch.where(self.valid & ~candidates, 2 * places, never)
        outputs = torch.where(real, torch.where(new, 2 * last + 1, 2 * edit.kept), never)
        key = torch.cat([others, outputs], 1)
        real_ones = (key < never).sum(1)
        found: list[int] = lengths if self.bounds and lengths is not None else real_ones.tolist()
        shortest, longest = min(found), max(found)
        key = torch.where(key < never, key, -1) if self.left else key
        order = key.sort(dim=1, stable=True).indices
        index = order[:, order.shape[1] - longest :] if self.left else order[:, :longest]
        columns = torch.arange(longest, device=index.device)
        valid = columns >= longest - real_ones[:, None] if self.left else columns < real_ones[:, None]
        return Move(index, valid, self.bounds or shortest < longest, edit, found)

    def after(self, move: Move, renumber: bool, deep: bool = True) -> Tokens:
        """The sequence after a move.

        Args:
            move: from `keep` or `edit`.
            renumber: survivors get positions 0, 1, 2, ... again; otherwise they keep theirs.
            deep: move the deep features, too; otherwise the caller does.
        """
        if renumber:
            positions = compact_positions(move.valid).expand(*self.positions.shape[:-2], *move.valid.shape)
        else:
            positions = move.read(self.positions)
        return Tokens(
            hidden=move.apply(self.hidden),
            columns=move.read(self.columns),
            valid=move.valid,
            positions=positions,
            padded=move.padded,
            left=self.left,
            deep=tuple(move.apply(one) for one in self.deep) if deep else self.deep,
            lengths=move.lengths,
            bounds=self.bounds,
        )


@dataclass(frozen=True)
class Move:
    """The shortening of a sequence: decided once, applied whenever its hidden states are computed.

    Attributes:
        index: `[B, L]`, the source of each token: one of the T tokens, or from T on an output of the edit.
        valid: `[B, L]` bool, False at padding.
        padded: whether any row has padding.
        outputs: the edit, if it merges.
        lengths: real tokens of each row, on the host.
    """

    index: Tensor
    valid: Tensor
    padded: bool
    outputs: Edit | None = None
    lengths: list[int] | None = None

    def to(self, device: torch.device) -> Move:
        """The same on another device; only for a move that does not merge."""
        assert self.outputs is None
        return Move(self.index.to(device), self.valid.to(device), self.padded, lengths=self.lengths)

    def apply(self, hidden: Tensor) -> Tensor:
        """`[B, T, D] -> [B, L, D]`; differentiable."""
        if self.outputs is not None:
            hidden = torch.cat([hidden, self.outputs.apply(hidden)], dim=1)
        return take(hidden, self.index)

    def read(self, values: Tensor) -> Tensor:
        """`[..., B, T] -> [..., B, L]`: outputs of the edit read the token that they represent."""
        if self.outputs is not None:
            kept = self.outputs.kept.clamp_min(0)
            values = torch.cat([values, values.gather(-1, kept.expand(*values.shape[:-2], *kept.shape))], dim=-1)
        return values.gather(-1, self.index.expand(*values.shape[:-2], *self.index.shape))
