"""An `Edit`: the tokens that stay, and those merged into them. Methods of both stages return one.

An edit is a sparse linear map from N tokens to K. The same edit applies to tower features, projected features, hidden
states inside the language model, features that are added at deeper layers, or boxes to draw. VisionZip's anchor plus
the mean of its members, VScan's true mean, PruMerge's weighted sums, the overlapping neighbourhoods of the paper's
Algorithm 1 and SparseVLM's recycled tokens differ only in their weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from duet.ops.gather import take

#: In `Edit.kept`: the tower's CLS token, and padding of a row that keeps fewer tokens than others.
CLS, NONE = -1, -2


@dataclass(frozen=True)
class Edit:
    """The tokens of each row that are kept and merged.

    Attributes:
        kept: `[B, K]` long, the token that each output represents; `CLS`, or `NONE` at padding.
        tokens: N, the number of tokens before, without CLS.
        source: `[B, M]` long, tokens that are merged into an output; `NONE` at padding. None without merging.
        target: `[B, M]` long, the output that each of them is merged into.
        weight: `[B, M]`, their weights.
        share: `[B, K]`, the weight of the token in `kept` itself; None for 1. An output with share 0 is a sum of
            sources.
        contextual: only the last this many of the K outputs receive sources.
        projected: the edit is for projected features, not for the tower's.
    """

    kept: Tensor
    tokens: int
    source: Tensor | None = None
    target: Tensor | None = None
    weight: Tensor | None = None
    share: Tensor | None = None
    contextual: int = 0
    projected: bool = False

    @classmethod
    def keep(cls, kept: Tensor, tokens: int) -> Edit:
        """Keep the tokens `[B, K]` out of `tokens`, without merging."""
        return cls(kept, tokens)

    @property
    def merges(self) -> bool:
        """Whether any output differs from the token that it represents."""
        return self.source is not None or self.share is not None

    @property
    def marked(self) -> Tensor:
        """`[B, N]` bool, the tokens that are represented by an output."""
        marks = torch.zeros(len(self.kept), self.tokens + 1, dtype=torch.bool, device=self.kept.device)
        return marks.scatter(1, torch.where(self.kept < 0, self.tokens, self.kept), True)[:, : self.tokens]

    @property
    def assign(self) -> Tensor:
        """`[B, N]` long, the output that each token went into, the first of several; -1 for a dropped token."""
        assign = torch.full((len(self.kept), self.tokens + 1), -1, dtype=torch.long, device=self.kept.device)
        if self.source is not None and self.target is not None:
            into = torch.where(self.source < 0, self.tokens, self.source)
            assign = assign.scatter_reduce(1, into, self.target, "amin", include_self=False)
        slots = torch.arange(self.kept.shape[1], device=self.kept.device).expand_as(self.kept)
        return assign.scatter(1, torch.where(self.kept < 0, self.tokens, self.kept), slots)[:, : self.tokens]

    @property
    def sizes(self) -> Tensor:
        """`[B, K]`, how many tokens went into each output, counted as in `assign`."""
        into = self.assign
        found = torch.zeros(self.kept.shape, device=into.device)
        return found.scatter_add(1, into.clamp_min(0), (into >= 0).to(found))

    def apply(self, x: Tensor, cls: Tensor | None = None) -> Tensor:
        """The tokens after the edit.

        Sums are computed in float32 (float64 stays) as one matrix product: the order of addition is fixed, and counts
        do not stop at 256 as in bfloat16.

        Args:
            x: `[B, N, D]`; gradients flow.
            cls: `[B, D]`, used where `kept` is `CLS`.

        Returns:
            `[B, K, D]` in x's dtype; zeros where `kept` is `NONE`.
        """
        outputs = take(x, self.kept.clamp_min(0))
        if cls is not None:
            outputs = torch.where(self.kept[..., None] == CLS, cls[:, None], outputs)
        if self.merges:
            outputs = self._merge(x, outputs)
        return outputs.masked_fill(self.kept[..., None] == NONE, 0)

    def _merge(self, x: Tensor, outputs: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        total = outputs.to(exact)
        if self.share is not None:
            total = total * self.share[..., None].to(exact)
        if self.source is not None and self.target is not None and self.weight is not None:
            first = self.kept.shape[1] - self.contextual
            into = (self.target - first).clamp_min(0)
            weight = self.weight.to(exact).masked_fill(self.source < 0, 0)
            spread = weight.new_zeros(len(into), self.contextual, into.shape[1]).scatter(
                1, into[:, None], weight[:, None]
            )
            sums = spread @ take(x, self.source.clamp_min(0)).to(exact)
            total = torch.cat([total[:, :first], total[:, first:] + sums], dim=1)
        return total.to(x.dtype)
