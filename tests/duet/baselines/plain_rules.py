"""The rules of FastV, SparseVLM, FitPrune, DART, HiRED, PruMerge in plain Python, one row at a time.

They share no line with the package. `Inputs` holds everything that one of them reads, for one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from duet.baselines import dart, fastv, fitprune, hired, prumerge, prumerge_plus, sparsevlm

START, TEXT = 3, 6


@dataclass
class Inputs:
    """Tensors of a batch: `N` visual tokens from column 3 on, 6 text tokens after them."""

    attention: Tensor
    self_attention: Tensor
    keys: Tensor
    hidden: Tensor
    cls_attention: Tensor

    def row(self, number: int) -> Inputs:
        return Inputs(*(value[number : number + 1] for value in vars(self).values()))

    def to(self, dtype: torch.dtype) -> Inputs:
        return Inputs(*(value.to(dtype) for value in vars(self).values()))


def inputs(batch: int = 2, tokens: int = 20, seed: int = 0) -> Inputs:
    """Random, and of a coarse grid, so that there are ties."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randint(1, 9, (batch, *shape), generator=generator) / 16

    return Inputs(
        attention=draw(4, TEXT, tokens),
        self_attention=draw(4, tokens, tokens),
        keys=draw(2, START + tokens + TEXT, 3) - 0.25,
        hidden=draw(START + tokens + TEXT, 5) - 0.3,
        cls_attention=draw(tokens),
    )


def best(scores: list[float], keep: int) -> list[int]:
    """The best, ties to the first, ascending."""
    return sorted(sorted(range(len(scores)), key=lambda at: -scores[at])[:keep])


def of_fastv(x: Inputs, keep: int) -> list[int]:
    heads = x.attention[0, :, -1].tolist()
    return best([sum(head[at] for head in heads) for at in range(len(heads[0]))], keep)


def of_sparsevlm(x: Inputs, keep: int) -> list[int]:
    maps = x.attention[0].tolist()
    return best([sum(row[at] for head in maps for row in head) for at in range(len(maps[0][0]))], keep)


def of_fitprune(x: Inputs, keep: int) -> list[int]:
    own, text = x.self_attention[0].tolist(), x.attention[0].tolist()
    size = len(own[0])

    def received(maps: list[list[list[float]]], at: int) -> float:
        return sum(max(head[row][at] for head in maps) for row in range(len(maps[0])))

    return best([received(own, at) * received(text, at) for at in range(size)], keep)


def of_dart(x: Inputs, keep: int) -> list[int]:
    norms = [sum(abs(value) for head in x.keys[0].tolist() for value in head[at]) for at in range(x.keys.shape[2])]
    visual = list(range(START, len(norms) - TEXT))
    text = list(range(len(norms) - TEXT, len(norms)))
    mine = sorted(visual, key=lambda at: -norms[at])[: min(4, keep)]
    order = list(set(mine + sorted(text, key=lambda at: -norms[at])[:4]))
    kept, left = list(mine), [at for at in visual if at not in mine]
    for number, pivot in enumerate(order):
        share = (keep - len(mine)) // len(order) + (number < (keep - len(mine)) % len(order))
        cosine = {at: float(torch.cosine_similarity(x.hidden[0, pivot], x.hidden[0, at], dim=0)) for at in left}
        # equal vectors have equal cosines only up to rounding
        taken = sorted(left, key=lambda at: round(cosine[at], 5))[:share]
        kept += taken
        left = [at for at in left if at not in taken]
    return sorted(at - START for at in kept)


def of_prumerge_plus(x: Inputs, keep: int) -> list[int]:
    scores = x.cls_attention[0].tolist()
    size, points = len(scores), keep // 2
    grid = {(2 * number + 1) * size // (2 * points) for number in range(points)}
    kept = set(best(scores, keep - points)) | grid
    for at in sorted(range(size), key=lambda at: -scores[at]):
        if len(kept) < keep:
            kept.add(at)
    return sorted(kept)


def plain_recycle(x: Tensor, scores: Tensor, keep: int) -> Tensor:
    """Merged tokens of one row, by hand."""
    return torch.stack([token for token, _ in plain_clusters(x, scores, keep)])


def plain_clusters(x: Tensor, scores: Tensor, keep: int, most: int | None = None) -> list[tuple[Tensor, int]]:
    """Merged tokens of one row and their centres; `most`: no more than that."""
    order = sorted(range(len(x)), key=lambda at: -float(scores[at]))
    dropped = len(x) - keep
    size = int(0.3 * dropped) + 1
    count = int(size / 10) + 1 if most is None else min(int(size / 10) + 1, most)
    pool = x[order[keep : keep + size]]
    far = torch.stack([torch.stack([(a - b).norm() for b in pool]) for a in pool]) / x.shape[1] ** 0.5
    density = [float((-(row.sort().values[:count] ** 2).mean()).exp()) for row in far]
    value = []
    for at in range(size):
        higher = [other for other in range(size) if (-density[other], other) < (-density[at], at)]
        value.append(density[at] * float(far[at, higher].min() if higher else far.max()))
    centres = sorted(range(size), key=lambda at: -value[at])[:count]
    nearest = [min(range(count), key=lambda c: (at != centres[c], float(far[at, centres[c]]))) if at in centres
               else min(range(count), key=lambda c: float(far[at, centres[c]])) for at in range(size)]  # fmt: skip
    members = [[at for at in range(size) if nearest[at] == cluster] for cluster in range(count)]
    return [(pool[own].mean(0), order[keep + centre]) for own, centre in zip(members, centres, strict=True)]


def plain_merge(x: Tensor, keys: Tensor, attention: Tensor, kept: list[int]) -> Tensor:
    outputs = []
    for token in kept:
        others = [other for other in range(len(x)) if other != token]
        like = {other: float(torch.cosine_similarity(keys[token], keys[other], dim=0)) for other in others}
        near = sorted(others, key=lambda other: -like[other])[:32]
        outputs.append(x[token] + sum(attention[other] * x[other] for other in near))
    rest = [token for token in range(len(x)) if token not in kept]
    outputs.append(sum((attention[token] * x[token] for token in rest), torch.zeros_like(x[0])))
    return torch.stack(outputs)


#: Name -> how the package is called, and the plain rule.
Rule = tuple[Callable[[Inputs, int], Tensor], Callable[[Inputs, int], list[int]]]
RULES: dict[str, Rule] = {
    "fastv": (lambda x, keep: fastv.select(keep=keep, attention=x.attention[:, :, -1]), of_fastv),
    "sparsevlm": (lambda x, keep: sparsevlm.select(keep=keep, attention=x.attention), of_sparsevlm),
    "fitprune": (
        lambda x, keep: fitprune.select(keep=keep, self_attention=x.self_attention, cross_attention=x.attention),
        of_fitprune,
    ),
    "dart": (
        lambda x, keep: dart.select(
            keep=keep, keys=x.keys, hidden=x.hidden, image_start=START, image_tokens=x.cls_attention.shape[1]
        ),
        of_dart,
    ),
    "hired": (
        lambda x, keep: hired.select(keep=keep, cls_attention=x.cls_attention),
        lambda x, keep: best(x.cls_attention[0].tolist(), keep),
    ),
    "prumerge": (
        lambda x, keep: prumerge.select(keep=keep, cls_attention=x.cls_attention),
        lambda x, keep: best(x.cls_attention[0].tolist(), keep),
    ),
    "prumerge_plus": (
        lambda x, keep: prumerge_plus.select(keep=keep, cls_attention=x.cls_attention),
        of_prumerge_plus,
    ),
}
