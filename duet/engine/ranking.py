"""Build a decoder pruner's view at a boundary, let it score, and turn its scores into an edit.

Queries and keys are those of one layer on its input, with queries only for the voting text tokens: one key projection
and a few query rows, independent of the model's attention kernel. No gradient flows through scores (the original
detaches, too).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from duet.edit import NONE, Edit
from duet.engine.ahead import Ahead
from duet.engine.host import upload
from duet.ops.gather import close_gaps
from duet.ops.scores import attention_probabilities, max_rows, mean_rows
from duet.ops.select import keep_best
from duet.types import LayerView, QueryRows

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from duet.engine.call import Call
    from duet.engine.plan import Drop
    from duet.engine.tokens import Tokens
    from duet.interfaces import RankingProjection, TextModel

#: Reductions of attention rows over heads; `all` keeps the heads.
HEADS: dict[str, Callable[..., Tensor]] = {"mean": mean_rows, "max": max_rows, "all": attention_probabilities}


@dataclass
class Vote:
    """Scores `[B, T]` and voters `[B, T]` bool of one drop, over the sequence that entered the ranking layer."""

    scores: Tensor
    voters: Tensor


@torch.no_grad()
def vote(
    lm: TextModel,
    call: Call,
    tokens: Tokens,
    rope: tuple[Tensor, Tensor],
    number: int,
    stage: int,
    candidates: Tensor,
    spared: int | None = None,
    mask: Any = None,
    sizes: Tensor | None = None,
) -> Vote:
    """Score the visual tokens with the weights of layer `number`, which they are about to enter.

    Args:
        lm: text model.
        call: layout, labels and compression of this call.
        tokens: all remaining tokens.
        rope: their rotary tables.
        number: index of the layer whose weights rank.
        stage: index of the drop that the scores are for.
        candidates: `[B, T]` bool, visual tokens that may be dropped; others vote along with the text after them.
        spared: how many of those others a row has at most; None: the device knows.
        mask: attention mask of the tokens, as the layers want it.
        sizes: `[B, T0]`, the patches that each prompt column stands for; None for plain attention.
    """
    compression = call.compression
    assert compression.pruner is not None
    projection = compression.decoder.ranking(lm.layers[number], tokens.hidden.detach(), rope)
    view = make_view(lm, call, tokens, number, stage, candidates, projection, rope, spared, sizes)
    view = replace(view, ahead=Ahead(lm, number, tokens, rope, mask))
    return Vote(*compression.pruner.score(view))


@torch.no_grad()
def choose(
    lm: TextModel,
    call: Call,
    tokens: Tokens,
    number: int,
    stage: int,
    candidates: Tensor,
    drop: Drop,
    found: Vote,
    sizes: Tensor | None = None,
) -> Edit:
    """The edit of one drop: the pruner's own, or the best candidates of each row, ascending.

    Counts come from the budget, so the number of survivors needs no read from the device.
    """
    pruner = call.compression.pruner
    own, counts = getattr(pruner, "edit", None), upload(drop.counts, candidates.device)[:, 1]
    if own is not None:
        view = make_view(lm, call, tokens, number, stage, candidates, sizes=sizes)
        return own(view, found.scores, counts)
    keep = keep_best(found.scores, candidates, counts)
    index, real = close_gaps(keep, drop.survivors, left=False)
    return Edit.keep(torch.where(real, index, NONE), keep.shape[1])


def make_view(
    lm: TextModel,
    call: Call,
    tokens: Tokens,
    number: int,
    stage: int,
    candidates: Tensor,
    projection: RankingProjection | None = None,
    rope: tuple[Tensor, Tensor] | None = None,
    others: int | None = None,
    sizes: Tensor | None = None,
) -> LayerView:
    """A pruner's view; without `projection` it has no attention and no keys."""
    assert call.layout is not None and call.placeholder is not None
    last = tokens.at(call.last)
    salient = call.salient_text
    spared = tokens.at(call.layout.visual) & ~candidates
    hidden = tokens.hidden.detach()
    text = _or_last(tokens.at(call.text) | spared, last)
    salient = None if salient is None else _or_last(tokens.at(salient), last)
    known = _most(call, others, text, last, salient)

    def keys() -> Tensor:
        assert projection is not None, "keys are for scoring, not for editing"
        return projection.keys()

    return LayerView(
        visual=candidates,
        text=text,
        last=last,
        salient=salient,
        valid=tokens.valid,
        columns=tokens.columns,
        hidden=hidden,
        layer=number,
        stage=stage,
        attention=_attention(call, tokens, projection, known),
        keys=keys,
        normed=lambda: lm.norm(hidden),
        embeddings=_embeddings(call, tokens),
        memory=call.memory,
        rope=rope,
        sizes=None if sizes is None else tokens.at(sizes.to(tokens.columns.device)),
    )


def _most(
    call: Call, others: int | None, text: Tensor, last: Tensor, salient: Tensor | None
) -> list[tuple[Tensor, int]]:
    """The most voters of a row in each group of text tokens, as far as the host knows them.

    Args:
        call: of this prompt.
        others: the most visual tokens of a row that vote along with the text; None: the device knows.
        text, last, salient: the groups.
    """
    if call.plan is not None:
        words = call.plan.text
        return [(text, words + (others or 0)), (last, 1), *([] if salient is None else [(salient, words)])]
    if call.host is None:
        return []
    host, found = call.host, []
    for own, mine in ((text, None if others is None else host.text), (last, host.last), (salient, host.salient_text)):
        if own is not None and mine is not None:
            counts = [max(count, least) for count, least in zip(*_sums(mine, host.last), strict=True)]
            found.append((own, max(counts) + (others or 0) * (own is text)))
    return found


def _sums(*masks: Tensor) -> list[list[int]]:
    return [mask.sum(1).tolist() for mask in masks]


def _attention(
    call: Call, tokens: Tokens, projection: RankingProjection | None, known: list[tuple[Tensor, int]]
) -> Callable[..., QueryRows]:
    seen = tokens.valid
    causal = call.compression.causal_ranking
    if call.answers is not None and not causal:
        # a voter that sees later tokens must not see the answer, which is absent at inference; pictures never belong to
        # the answer, even if the labels cover the whole prompt
        assert call.placeholder is not None
        seen = tokens.at(~call.answers | call.placeholder)

    def attention(queries: Tensor, heads: str = "mean") -> QueryRows:
        assert projection is not None, "attention is for scoring, not for editing"
        most = next((count for group, count in known if group is queries), None)
        if most is None:
            most = queries.shape[1] if call.plan is not None else int(queries.sum(-1).max())
        index, real = close_gaps(queries, min(most, queries.shape[1]), left=False)
        columns = torch.arange(queries.shape[1], device=queries.device)
        visible = seen[:, None].expand(-1, index.shape[1], -1)
        if causal:
            visible = visible & (columns <= index[..., None])
        q, k = projection.queries(index), projection.keys()
        return QueryRows(HEADS[heads](q, k, projection.scale, visible), index, real)

    return attention


def _embeddings(call: Call, tokens: Tokens) -> Tensor | None:
    if call.embeddings is None:
        return None
    whole: Any = call.embeddings.to(tokens.columns.device)
    return whole.gather(1, tokens.columns[..., None].expand(-1, -1, whole.shape[-1]))


def _or_last(voters: Tensor, last: Tensor) -> Tensor:
    """The voters; a row without any is ranked by its last prompt token."""
    return torch.where(voters.any(1, keepdim=True), voters, last)
