"""One row through LLaVA under DUET, the slow way: stock layers, whole eager attention maps, Python loops.

Shares no line with the engine. It recomputes everything from the first token, so it also says what cached decoding,
beams and later turns have to give: tokens from column `prompt` on are text that came later and did not vote.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.plain_stage1 import RULES, Picture, Reduced
from tests.tiny_llava import Row


@dataclass
class Plan:
    """What to do: the paper's settings, no names.

    Attributes:
        merge: `visionzip`, `released`, `paper`, or None for no stage 1; with counts and width.
        voters: `last`, `all`, `salient`, `attention`, or None for no stage 2; with layers and ratios.
        renumber: survivors are counted 0, 1, 2, ... again.
        keep: instead of ratios, counts per picture.
        entry: layers of text alone; frozen: layers that read but do not update what came from pictures.
    """

    merge: str | None = None
    dominant: int = 0
    contextual: int = 0
    width: int = 4
    score: str = "cls_row"
    voters: str | None = None
    layers: tuple[int, ...] = ()
    ratios: tuple[float, ...] = ()
    renumber: bool = True
    keep: tuple[int, ...] = ()
    entry: int = 0
    frozen: tuple[int, ...] = ()


@dataclass
class Result:
    """What came out.

    Attributes:
        columns: `[T']` prompt columns that are left at the end; logits `[T', V]` of each.
        kept: at each stage, the numbers of the visual tokens that stay.
        lengths: per layer, tokens that it updates; positions: per layer, their position ids.
        cached: per layer, tokens that it has keys of.
    """

    columns: Tensor
    logits: Tensor
    kept: list[list[int]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    positions: list[list[int]] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)

    def loss(self, labels: Tensor) -> Tensor:
        """Cross entropy of each surviving token's next label, `[M]`."""
        wanted = labels[self.columns][1:]
        told = wanted != -100
        return torch.nn.functional.cross_entropy(self.logits[:-1][told], wanted[told], reduction="none")


def eager(model: Any) -> Any:
    """A stock copy whose layers hand out whole attention maps."""
    copy = deepcopy(model)
    copy.set_attn_implementation("eager")
    return copy


#: `(model, row, plan, visual columns) ->` embeddings, the columns that they are in, those of them that never go.
Embedder = Callable[[Any, Any, Plan, list[int]], tuple[Tensor, list[int], list[int]]]


def run(
    model: Any,
    row: Any,
    plan: Plan,
    prompt: int | None = None,
    labels: Tensor | None = None,
    embed: Embedder | None = None,
) -> Result:
    """Run a row from its first to its last token.

    Args:
        model: from `eager`.
        row: ids and pictures.
        plan: what to do.
        prompt: tokens from here on are not part of the prompt; None for all are.
        labels: `[T]`, given in training: then answers do not vote.
        embed: of another family.
    """
    lm = model.model.language_model
    ids = row.ids
    prompt = len(ids) if prompt is None else prompt
    visual = [column for column, token in enumerate(ids[:prompt].tolist()) if token == model.config.image_token_id]
    hidden, columns, separators = (embed or _embed)(model, row, plan, visual)
    entered = [column for column in columns if column in visual and column not in separators]
    positions = list(range(len(columns))) if plan.merge and plan.renumber else list(columns)
    voters = _voters(ids, plan, visual, prompt, labels)
    result = Result(torch.tensor(columns), hidden)
    for number, layer in enumerate(lm.layers):
        if number in plan.layers and visual:
            left = [column for column in columns if column in entered]
            at = plan.layers.index(number)
            count = plan.keep[at] * _pictures(model, row) if plan.keep else int(len(entered) * plan.ratios[at])
            count = min(len(left), count)
            if count < len(left):
                best = sorted(_best(lm, layer, hidden, positions, columns, voters, left)[:count])
                result.kept.append([entered.index(column) for column in best])
                stays = [at for at, column in enumerate(columns) if column not in left or column in best]
                hidden, columns = hidden[stays], [columns[at] for at in stays]
                positions = list(range(len(stays))) if plan.renumber else [positions[at] for at in stays]
        text = [at for at, column in enumerate(columns) if column not in visual]
        runs = text if number < plan.entry else list(range(len(columns)))
        own = [positions[at] for at in runs]
        rope, mask = _tables(lm, hidden[runs], own)
        states = list(layer(hidden[runs][None], attention_mask=mask, position_embeddings=rope)[0])
        updated = [at for at in runs if number not in plan.frozen or at in text]
        hidden = torch.stack([states[runs.index(at)] if at in updated else hidden[at] for at in range(len(columns))])
        result.lengths.append(len(updated))
        result.positions.append([positions[at] for at in updated])
        result.cached.append(len(runs))
    result.columns = torch.tensor(columns)
    result.logits = model.lm_head(lm.norm(hidden))
    return result


def _pictures(model: Any, row: Any) -> int:
    """Pictures of a row, or crops that hold more than padding."""
    if not hasattr(row, "crops"):
        return len(row.pixels)
    from tests.plain_next import tiles

    return sum(1 + tiles(model, size, crops) for size, crops in zip(row.sizes, row.crops, strict=True))


def _embed(model: Any, row: Row, plan: Plan, visual: list[int]) -> tuple[Tensor, list[int], list[int]]:
    embeds = model.get_input_embeddings()(row.ids)
    if not visual:
        return embeds, list(range(len(row.ids))), []
    size = len(visual) // len(row.pixels)
    cells: list[Tensor | None] = list(embeds)
    for number, pixels in enumerate(row.pixels):
        own = visual[number * size : (number + 1) * size]
        features, slots = _see(model, pixels, plan, size)
        for column in own:
            cells[column] = None
        for feature, slot in zip(model.model.multi_modal_projector(features), slots, strict=True):
            cells[own[slot]] = feature
    columns = [column for column, cell in enumerate(cells) if cell is not None]
    return torch.stack([cell for cell in cells if cell is not None]), columns, []


def _see(model: Any, pixels: Tensor, plan: Plan, size: int) -> tuple[Tensor, list[int]]:
    """Features of one picture and the slots that they take among its placeholders."""
    states, maps, keys = look(model, pixels)
    patches = states[1:]
    if plan.merge is None:
        whole = states if size == len(states) else patches
        return whole, list(range(size))
    attention = torch.cat([maps.sum(0)[:1], maps.mean(0)[1:]]) if plan.score == "cls_row" else maps.mean(0)
    picture = Picture(patches, states[0], keys, attention)
    reduced: Reduced = RULES[plan.merge](picture, plan.dominant, plan.contextual, plan.width, plan.score)
    features = torch.stack(reduced.features)
    if plan.renumber:
        return features, list(range(len(features)))
    return features, _slots_in_place(reduced.kept, size, size - len(patches))


def _slots_in_place(kept: list[int], size: int, shift: int) -> list[int]:
    """Each token at the place of its patch; CLS at its own place, or at the first free one where it has none."""
    taken = [patch + shift for patch in kept if patch >= 0]
    free = next(slot for slot in range(size) if slot not in taken)
    return [patch + shift if patch >= 0 else free for patch in kept]


def look(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """States `[N, D]` of the layer before the last, its attention `[H, N, N]`, its patches' keys `[N - 1, Dk]`."""
    tower = model.model.vision_tower
    attention = tower.encoder.layers[-2].self_attn
    seen = {}
    handle = attention.k_proj.register_forward_hook(lambda module, args, output: seen.update(keys=output))
    output = tower(pixels[None], output_hidden_states=True, output_attentions=True)
    handle.remove()
    keys = seen["keys"][0].unflatten(-1, (attention.num_heads, -1)).mean(1)
    return output.hidden_states[-2][0], output.attentions[-2][0], keys[1:]


@dataclass
class Voters:
    """Text columns that may vote; `who_looks`: only those that look at the pictures, and those that `always` vote."""

    columns: list[int]
    always: list[int]
    who_looks: bool


def _voters(ids: Tensor, plan: Plan, visual: list[int], prompt: int, labels: Tensor | None) -> Voters:
    behind = range(max(visual, default=-1) + 1, prompt)
    if labels is None:
        text, last = list(behind), [prompt - 1]
    else:
        text = [column for column in behind if labels[column] == -100]
        last = [column for column in text if column + 1 < len(ids) and labels[column + 1] != -100] or [len(ids) - 1]
    chosen = last if plan.voters == "last" else text
    if plan.voters == "salient":
        even = {column for column in text if ids[column] % 2 == 0}
        chosen = sorted(even | set(last)) if labels is None else sorted(even)
    return Voters(chosen or last, last, plan.voters == "attention")


def _best(
    lm: Any,
    layer: Any,
    hidden: Tensor,
    positions: list[int],
    columns: list[int],
    voters: Voters,
    left: list[int],
) -> list[int]:
    """Columns of the visual tokens, best first."""
    rope, mask = _tables(lm, hidden, positions)
    normed = layer.input_layernorm(hidden[None])
    maps = layer.self_attn(normed, position_embeddings=rope, attention_mask=mask)[1][0]
    rows = {voter: maps[:, columns.index(voter)].mean(0) for voter in voters.columns}
    if voters.who_looks:
        looks = {voter: sum(float(row[columns.index(column)]) for column in left) for voter, row in rows.items()}
        mean = sum(looks.values()) / len(looks)
        rows = {voter: row for voter, row in rows.items() if looks[voter] >= mean or voter in voters.always}
    votes = torch.stack(list(rows.values())).mean(0).detach()
    return sorted(left, key=lambda column: -float(votes[columns.index(column)]))


def _tables(lm: Any, hidden: Tensor, positions: list[int]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    mask = torch.full((len(hidden), len(hidden)), torch.finfo(hidden.dtype).min).triu(1)
    return lm.rotary_emb(hidden[None], position_ids=torch.tensor([positions])), mask[None, None]
