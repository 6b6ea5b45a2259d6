"""One row through LLaVA under a method of the tables, the slow way: stock layers, whole eager maps, Python loops.

Shares no line with the engine or the methods. Everything is computed again from the first token, so it also says what
cached decoding has to give: tokens from column `prompt` on are text that came later and has no say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tests.duet.baselines.plain_rules import best, plain_clusters, plain_merge
from tests.tiny_llava import Row


@dataclass
class Seen:
    """A sequence after a layer, and what that layer computed. Visual and text tokens are places in the sequence.

    Attributes:
        maps: `[H, T, T]`; keys: `[Hkv, T, d]`; hidden: `[T, D]` after the layer; normed: after the final norm.
        visual: candidates; text: after the picture, of the prompt; last: the prompt's last token.
        entered: embeddings of the visual and of the text tokens that entered the language model.
        columns, positions: of each token.
    """

    maps: Tensor
    keys: Tensor
    hidden: Tensor
    normed: Tensor
    visual: list[int]
    text: list[int]
    last: int
    entered: tuple[Tensor, Tensor]
    columns: list[int]
    positions: list[int]


#: What a rule says: the places that stay, and merged tokens with the place that each is named after.
Choice = tuple[list[int], list[tuple[int, Tensor]]]
Rule = Callable[[Seen, int], Choice]


@dataclass
class Result:
    """What came out: columns and logits of what is left, what each drop kept, and per layer lengths and positions.

    A merged token has the column, the position and the number of the token in its middle.
    """

    columns: list[int]
    logits: Tensor
    kept: list[list[Any]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    positions: list[list[int]] = field(default_factory=list)


def by_scores(scores: Callable[[Seen], Tensor]) -> Rule:
    def rule(seen: Seen, count: int) -> Choice:
        values = scores(seen)[seen.visual].tolist()
        return [seen.visual[at] for at in best(values, count)], []

    return rule


def fitprune_scores(seen: Seen) -> Tensor:
    maps = seen.maps.amax(0)
    return maps[seen.visual].sum(0) * maps[seen.text].sum(0)


def raters_of(seen: Seen) -> list[int]:
    visual, text = seen.entered
    looks = (visual @ text.T).softmax(-1).mean(0)
    return [place for place, look in zip(seen.text, looks, strict=True) if look > looks.mean()]


def sparsevlm(seen: Seen, count: int) -> Choice:
    scores = seen.maps[:, raters_of(seen)].mean((0, 1))[seen.visual]
    splits = []
    for stays in range(count + 1):
        pool = int(0.3 * (len(seen.visual) - stays)) + 1
        splits.append((stays, stays + int(pool / 10) + 1))
    stays = max([stays for stays, total in splits if total <= count] + [count - count // 2])
    kept = [seen.visual[at] for at in best(scores.tolist(), stays)]
    if stays == count:
        return kept, []
    merged = plain_clusters(seen.hidden[seen.visual], scores, stays, count - stays)
    return kept, [(seen.visual[centre], token) for token, centre in merged]


def sparsevlm_2(seen: Seen, count: int) -> Choice:
    """All of the tiny model's heads vote; theta is 10000, heads are 8 wide."""
    theta = 10000.0 ** (-torch.arange(0, 8, 2) / 8)
    places = torch.tensor(seen.positions)[:, None]
    distance = places - places.T
    weight = (2 * (distance[..., None] * theta).cos()).sum(-1) / 8**0.5
    votes = (seen.maps / weight)[:, raters_of(seen)].mean((0, 1))
    return by_scores(lambda _: votes)(seen, count)


def dart(seen: Seen, count: int) -> Choice:
    norms = seen.keys.abs().sum((0, 2)).tolist()
    kept = sorted(seen.visual, key=lambda at: -norms[at])[: min(4, count)]
    column = {seen.columns[at]: at for at in range(len(norms))}
    pivots = kept + sorted(seen.text, key=lambda at: -norms[at])[:4]
    order = [column[number] for number in {seen.columns[at] for at in pivots}]
    left, share, spare = [at for at in seen.visual if at not in kept], *divmod(count - len(kept), len(order))
    for number, pivot in enumerate(order):
        like = torch.cosine_similarity(seen.normed[pivot][None], seen.normed, dim=-1).tolist()
        taken = sorted(left, key=lambda at, like=like: like[at])[: share + (number < spare)]
        kept, left = kept + taken, [at for at in left if at not in taken]
    return sorted(kept), []


RULES: dict[str, Rule] = {
    "fastv": by_scores(lambda seen: seen.maps.mean(0)[seen.last]),
    "fitprune": by_scores(fitprune_scores),
    "sparsevlm": sparsevlm,
    "sparsevlm 2": sparsevlm_2,
    "dart": dart,
}


def hired(tower: Tower, count: int) -> Tensor:
    return tower.features[best(tower.cls_attention.tolist(), count)]


def prumerge(tower: Tower, count: int) -> Tensor:
    order = sorted(range(len(tower.wide)), key=lambda at: -float(tower.wide[at]))[: count - 1]
    return plain_merge(tower.features, tower.wide_keys, tower.wide, order)


def prumerge_plus(tower: Tower, count: int) -> Tensor:
    size, points, scores = len(tower.wide), (count - 1) // 2, tower.wide.tolist()
    grid = [(2 * number + 1) * size // (2 * points) for number in range(points)]
    ranks = sorted(range(size), key=lambda at: -scores[at])
    chosen = ranks[: count - 1 - points]
    chosen += [at for at in ranks if at not in chosen and at not in grid][: count - 1 - len({*chosen, *grid})]
    chosen = sorted(chosen, key=lambda at: -scores[at])
    return plain_merge(tower.features, tower.wide_keys, tower.wide, chosen + [at for at in grid if at not in chosen])


@dataclass
class Tower:
    """What a stage-1 rule sees of one picture: features `[N, D]`, score rows `[N]`, keys `[N, D]`."""

    features: Tensor
    cls_attention: Tensor
    wide: Tensor
    wide_keys: Tensor


REDUCERS: dict[str, Callable[[Tower, int], Tensor]] = {
    "hired": hired,
    "prumerge": prumerge,
    "prumerge_plus": prumerge_plus,
}


def look(model: Any, pixels: Tensor) -> Tower:
    """The tower, and queries and keys of the layer after the features, computed by hand."""
    tower = model.model.vision_tower
    output = tower(pixels[None], output_hidden_states=True, output_attentions=True)
    states = output.hidden_states[-2][0]
    after = tower.encoder.layers[-1]
    normed = after.layer_norm1(states)
    query, keys = after.self_attn.q_proj(normed)[0], after.self_attn.k_proj(normed)
    wide = (keys @ query / len(query) ** 0.5).softmax(0)
    return Tower(states[1:], output.attentions[-2][0].sum(0)[0, 1:], wide[1:], keys[1:])


def run(
    model: Any,
    row: Row,
    *,
    reducer: str | None = None,
    count: int = 0,
    pruner: str | None = None,
    drops: dict[int, float] | None = None,
    renumber: bool = True,
    prompt: int | None = None,
) -> Result:
    """Run a row from its first to its last token.

    Args:
        model: an eager, stock copy.
        row: with one picture or several.
        reducer: of `REDUCERS`; count: tokens per picture that it leaves.
        pruner: of `RULES`; drops: boundary -> share of the tokens that entered.
        renumber: survivors are counted 0, 1, 2, ... again.
        prompt: tokens from here on are not part of the prompt; None for all are.
    """
    lm = model.model.language_model
    prompt = len(row.ids) if prompt is None else prompt
    hidden, tokens = _embed(model, row, reducer, count)
    if reducer and renumber:
        tokens = _numbered(tokens)
    first = {token.number: at for at, token in enumerate(tokens) if token.number is not None}
    entered = hidden[list(first.values())], hidden[_text(tokens, prompt)]
    result = Result([], hidden)
    seen: dict[str, Tensor] = {}
    for number, layer in enumerate(lm.layers):
        visual = [at for at, token in enumerate(tokens) if token.number is not None]
        total = int(len(first) * (drops or {}).get(number, 1.0))
        if total < len(visual):
            view = Seen(
                **seen,
                hidden=hidden,
                normed=lm.norm(hidden),
                visual=visual,
                text=_text(tokens, prompt),
                last=next(at for at, token in enumerate(tokens) if token.column == prompt - 1),
                entered=entered,
                columns=[token.column for token in tokens],
                positions=[token.position for token in tokens],
            )
            kept, merged = RULES[pruner or ""](view, total)
            result.kept.append([tokens[at].number for at in (*kept, *(centre for centre, _ in merged))])
            stays = [at for at in range(len(tokens)) if at not in visual or at in kept]
            after = stays.index(max(kept)) + 1
            states = [hidden[at] for at in stays]
            states[after:after] = [token for _, token in merged]
            stays[after:after] = [at for at, _ in merged]
            hidden, tokens = torch.stack(states), [tokens[at] for at in stays]
            tokens = _numbered(tokens) if renumber else tokens
        result.lengths.append(len(tokens))
        result.positions.append([token.position for token in tokens])
        seen, hidden = _layer(lm, layer, hidden, result.positions[-1])
    result.columns = [token.column for token in tokens]
    result.logits = model.lm_head(lm.norm(hidden))
    return result


@dataclass(frozen=True)
class Token:
    """Where a token came from; `number` among the visual tokens that entered, None for text."""

    column: int
    position: int
    number: int | None


def _numbered(tokens: list[Token]) -> list[Token]:
    return [replace(token, position=at) for at, token in enumerate(tokens)]


def _text(tokens: list[Token], prompt: int) -> list[int]:
    """Places of the text after the last picture."""
    last = max(at for at, token in enumerate(tokens) if token.number is not None)
    return [at for at, token in enumerate(tokens) if at > last and token.column < prompt]


def _layer(lm: Any, layer: Any, hidden: Tensor, positions: list[int]) -> tuple[dict[str, Tensor], Tensor]:
    mask = torch.full((len(hidden), len(hidden)), torch.finfo(hidden.dtype).min).triu(1)[None, None]
    rope = lm.rotary_emb(hidden[None], position_ids=torch.tensor([positions]))
    normed = layer.input_layernorm(hidden[None])
    maps = layer.self_attn(normed, position_embeddings=rope, attention_mask=mask)[1][0]
    keys = layer.self_attn.k_proj(normed).unflatten(-1, (-1, layer.self_attn.head_dim)).transpose(1, 2)
    turned, _ = apply_rotary_pos_emb(keys, keys, *rope)
    out = layer(hidden[None], attention_mask=mask, position_embeddings=rope)
    return {"maps": maps, "keys": turned[0]}, out[0]


def _embed(model: Any, row: Row, reducer: str | None, count: int) -> tuple[Tensor, list[Token]]:
    """Embeddings, and where they are from."""
    cells: list[Tensor | None] = list(model.get_input_embeddings()(row.ids))
    slots = [column for column, token in enumerate(row.ids.tolist()) if token == model.config.image_token_id]
    size = len(slots) // len(row.pixels)
    for number, pixels in enumerate(row.pixels):
        tower = look(model, pixels)
        features = REDUCERS[reducer](tower, count) if reducer else tower.features
        own = slots[number * size : (number + 1) * size]
        for column in own:
            cells[column] = None
        for column, feature in zip(own, model.model.multi_modal_projector(features), strict=False):
            cells[column] = feature
    found, tokens, numbers = [], [], iter(range(len(slots)))
    for column, cell in enumerate(cells):
        if cell is not None:
            found.append(cell)
            tokens.append(Token(column, column, next(numbers) if column in slots else None))
    return torch.stack(found), tokens
