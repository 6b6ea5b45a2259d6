"""The padded batch of tokens between two boundaries, and how it shrinks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from duet.ops.gather import close_gaps, compact_positions, take


@dataclass(frozen=True)
class Tokens:
    """What enters a decoder layer.

    Attributes:
        hidden: `[B, T, D]`.
        columns: `[B, T]` long, the column of the original prompt that each token came from.
        valid: `[B, T]` bool, False at padding.
        positions: `[B, T]` position ids, or `[A, B, T]` with several axes (M-RoPE).
        padded: whether any row has padding; known on the host, so that no kernel has to be waited for.
        left: padding is on the left side.
    """

    hidden: Tensor
    columns: Tensor
    valid: Tensor
    positions: Tensor
    padded: bool
    left: bool

    @property
    def mask(self) -> Tensor | None:
        """The 2-D attention mask that Hugging Face's mask helpers take; None when nothing is padded."""
        return self.valid if self.padded else None

    def at(self, prompt: Tensor) -> Tensor:
        """Read a per-column tensor of the prompt, `[B, T0]`, at these tokens; padding reads False or 0."""
        read = prompt.to(self.columns.device).gather(1, self.columns)
        return read & self.valid if read.dtype == torch.bool else read * self.valid

    def before(self, module: nn.Module) -> Tokens:
        """All parts where accelerate has a module compute (`device_map`); without its hooks, where `hidden` is."""
        given = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        device = self.hidden.device if given is None else torch.device(given)
        names = ("hidden", "columns", "valid", "positions")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def shrink(self, keep: Tensor, renumber: bool) -> Tokens:
        """Keep the marked tokens.

        Args:
            keep: `[B, T]` bool; padding is dropped wherever it is marked.
            renumber: survivors get positions 0, 1, 2, ... again; otherwise they keep theirs.
        """
        keep = keep & self.valid
        lengths = keep.sum(-1)
        shortest, longest = int(lengths.min()), int(lengths.max())
        index, valid = close_gaps(keep, longest, self.left)
        if renumber:
            positions = compact_positions(valid).expand(*self.positions.shape[:-2], *valid.shape)
        else:
            positions = self.positions.gather(-1, index.expand(*self.positions.shape[:-2], *index.shape))
        return Tokens(
            hidden=take(self.hidden, index),
            columns=self.columns.gather(1, index),
            valid=valid,
            positions=positions,
            padded=shortest < longest,
            left=self.left,
        )
