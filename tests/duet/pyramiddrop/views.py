"""Random layer views for the stage-2 tests: `[visual ... text ... padding]` rows and their attention maps."""

from __future__ import annotations

import torch
from torch import Tensor

from duet.types import LayerView, QueryRows


def make_view(seed: int, salient: Tensor | None = None) -> tuple[LayerView, Tensor]:
    """A view of two rows of 9 tokens, 2 heads, and its attention maps `[2, 2, 9, 9]`; row 1 is padded."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 2, 9, 9, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    text = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 0, 0]]).bool()
    visual = torch.tensor([[0, 1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0]]).bool()
    last = torch.tensor([[0, 0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1, 0, 0]]).bool()

    def attention(queries: Tensor) -> QueryRows:
        longest = int(queries.sum(1).max())
        index = torch.zeros(2, longest, dtype=torch.long)
        real = torch.zeros(2, longest, dtype=torch.bool)
        for b, row in enumerate(queries):
            asked = row.nonzero().flatten()
            index[b, : len(asked)], real[b, : len(asked)] = asked, True
        rows = torch.stack([picture.mean(0)[wanted] for picture, wanted in zip(maps, index, strict=True)])
        return QueryRows(rows, index, real)

    hidden = torch.zeros(2, 9, 1, dtype=torch.float64)
    view = LayerView(
        visual=visual,
        text=text,
        last=last,
        salient=salient,
        valid=visual | text,
        columns=torch.arange(9).expand(2, -1),
        hidden=hidden,
        layer=0,
        stage=0,
        attention=attention,
        keys=lambda: hidden[:, None],
        normed=lambda: hidden,
        embeddings=None,
        memory={},
    )
    return view, maps


def mean_of(maps: Tensor, row: int, voters: list[int]) -> Tensor:
    """Attention of some tokens of one row, averaged over heads, then over the tokens: `[T]`."""
    return torch.stack([maps[row, :, voter].mean(0) for voter in voters]).mean(0)
