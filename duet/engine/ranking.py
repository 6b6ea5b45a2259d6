"""Build what a decoder pruner sees at a boundary, and let it score.

Queries and keys are those of the layer about to run, on the hidden states about to enter it, for the voting text
tokens only: one key projection and a few query rows, whatever attention backend the model itself uses. No gradient
flows through scores (the original detaches too).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from duet.ops.gather import close_gaps
from duet.ops.scores import mean_rows
from duet.types import LayerView, QueryRows

if TYPE_CHECKING:
    from torch import Tensor

    from duet.engine.call import Call
    from duet.engine.tokens import Tokens
    from duet.interfaces import TextModel


@torch.no_grad()
def rank(
    lm: TextModel, call: Call, tokens: Tokens, rope: tuple[Tensor, Tensor], number: int, candidates: Tensor
) -> tuple[Tensor, Tensor]:
    """Score the visual tokens that are about to enter layer `number`.

    Args:
        lm: text model.
        call: layout, labels and compression of this call.
        tokens: all that are left.
        rope: their rotary tables.
        number: of the layer whose weights rank.
        candidates: `[B, T]` bool, visual tokens that may be dropped; others vote along with the text behind them.

    Returns:
        scores `[B, T]` and voters `[B, T]` bool over the current tokens.
    """
    compression = call.compression
    assert call.layout is not None and compression.pruner is not None
    projection = compression.adapter.ranking(lm.layers[number], tokens.hidden.detach(), rope)

    seen = tokens.valid
    if call.answers is not None and not compression.adapter.causal_ranking:
        # a voter that sees what follows must not see the answer, which is not there when the model is asked; pictures
        # are none, also where somebody labels all that is in the prompt
        seen = tokens.at(~call.answers | call.layout.placeholder)

    def attention(queries: Tensor) -> QueryRows:
        index, real = close_gaps(queries, int(queries.sum(-1).max()), left=False)
        columns = torch.arange(queries.shape[1], device=queries.device)
        visible = seen[:, None].expand(-1, index.shape[1], -1)
        if compression.adapter.causal_ranking:
            visible = visible & (columns <= index[..., None])
        q, k = projection.queries(index), projection.keys()
        return QueryRows(mean_rows(q, k, projection.scale, visible), index, real)

    last = tokens.at(call.last)
    salient = call.salient_text
    spared = tokens.at(call.layout.visual) & ~candidates
    view = LayerView(
        visual=candidates,
        text=_or_last(tokens.at(call.text) | spared, last),
        last=last,
        salient=None if salient is None else _or_last(tokens.at(salient), last),
        attention=attention,
    )
    return compression.pruner.score(view)


def _or_last(voters: Tensor, last: Tensor) -> Tensor:
    """A row in which nobody may vote is ranked by its last prompt token."""
    return torch.where(voters.any(1, keepdim=True), voters, last)
