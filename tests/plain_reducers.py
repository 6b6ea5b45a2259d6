"""The rules of the reducers that act before the language model, for one picture in plain loops over numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> float:
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size else 0.0


def table(features: Tensor) -> list[list[float]]:
    """Cosine of every token with every other one."""
    return [[cosine(a, b) for b in features] for a in features]


def first_best(scores: dict[int, float]) -> int:
    """The candidate with the largest score, the first of equal ones."""
    return min(scores, key=lambda number: (-scores[number], number))


def falling(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda number: (-scores[number], number))


def facility_location(cover: list[list[float]], weight: list[float], keep: int) -> list[int]:
    """`cover[r][n]`: rows to cover, candidates. The order of picking."""
    best, picks = [0.0] * len(cover), []
    for _ in range(keep):
        gains = {
            n: weight[n] * sum(max(0.0, row[n] - best[r]) for r, row in enumerate(cover))
            for n in range(len(weight))
            if n not in picks
        }
        picks.append(first_best(gains))
        best = [max(best[r], row[picks[-1]]) for r, row in enumerate(cover)]
    return picks


def scope(keep: int, features: Tensor, cls_attention: Tensor, alpha: float = 1.0) -> list[int]:
    return facility_location(table(features), [float(a) ** alpha for a in cls_attention], keep)


def divprune(keep: int, projected: Tensor) -> list[int]:
    like = table(projected)
    count = len(like)
    picks: list[int] = []
    while len(picks) < keep:
        rest = [n for n in range(count) if n not in picks]
        against = {n: picks or [other for other in range(count) if other != n] for n in rest}
        picks.append(first_best({n: min((1 - like[n][o] for o in against[n]), default=0.0) for n in rest}))
    return picks


def cdpruner(keep: int, projected: Tensor, clip_image_embeds: Tensor, clip_text_embeds: Tensor) -> list[int]:
    """By determinants: the set that the greedy rule grows, without any Cholesky factor."""
    unlike = [-sum(cosine(e, u) for u in clip_text_embeds) / len(clip_text_embeds) for e in clip_image_embeds]
    spread = max(unlike) - min(unlike)
    relevance = torch.tensor([(u - min(unlike) + 1e-6) / spread for u in unlike], dtype=torch.float64)
    kernel = relevance[:, None] * torch.tensor(table(projected), dtype=torch.float64) * relevance
    picks: list[int] = []
    for _ in range(keep):
        rest = [n for n in range(len(kernel)) if n not in picks]
        picks.append(first_best({n: float(torch.det(kernel[[*picks, n]][:, [*picks, n]])) for n in rest}))
    return picks


def vispruner(keep: int, features: Tensor, cls_attention: Tensor, important_ratio: float = 0.5) -> list[int]:
    like, order = table(features), falling(cls_attention.tolist())
    important = int(keep * important_ratio)
    chosen, rest = order[:important], order[important:]
    while len(rest) > keep - important:
        mine, others = rest[0::2], rest[1::2]
        leave = min(8, len(rest) - (keep - important), len(mine))
        if others:
            nearest = [max(like[a][b] for b in others) for a in mine]
            mine = [mine[place] for place in falling(nearest)]
        rest = mine[leave:] + others
    return chosen + rest


def mmtok(keep: int, features: Tensor, projected: Tensor, text_tokens: Tensor) -> list[int]:
    count, words = len(features), len(text_tokens)

    def softmax(values: list[float], weight: float) -> list[float]:
        powers = [math.exp(value - max(values)) for value in values]
        return [weight * power / sum(powers) for power in powers]

    cover = [softmax([cosine(word, p) / 0.02 for p in projected], 1 / words) for word in text_tokens]
    cover += [softmax([c / 0.2 for c in row], 0.5 / count) for row in table(features)]
    return facility_location(cover, [1.0] * count, keep)


def holov(keep: int, projected: Tensor, cls_attention: Tensor) -> list[int]:
    count, strips = len(projected), []
    start = 0
    for number in range(16):
        size = count // 16 + (number < count % 16)
        strips.append(list(range(start, start + size)))
        start += size
    like, scores = table(projected), []
    for strip in strips:
        variances = []
        for i in strip:
            row = [like[i][j] if i != j else 0.0 for j in strip]
            mean = sum(row) / (len(strip) - 1)
            variances.append(sum((value - mean) ** 2 for value in row) / (len(strip) - 1))
        attention = [1000 * float(cls_attention[i]) for i in strip]
        scale = sum(attention) / len(strip) / (sum(variances) / len(strip) + 1e-6)
        scores.append(sum(a + 0.09 * v * scale for a, v in zip(attention, variances, strict=True)) / len(strip))
    quota = [math.floor(score / (sum(scores) + 1e-6) * keep) for score in scores]
    for number in falling(scores)[: keep - sum(quota)]:
        quota[number] += 1
    order = falling(cls_attention.tolist())
    chosen = [i for strip, q in zip(strips, quota, strict=True) for i in [o for o in order if o in strip][:q]]
    return chosen + [i for i in order if i not in chosen][: keep - len(chosen)]


def vscan(keep: int, cls_attention: Tensor, cls_attention_shallow: Tensor, grid: tuple[int, int]) -> list[int]:
    height, width = grid
    chosen: list[int] = []
    order = falling(cls_attention_shallow.tolist())
    for window in range(16):
        inside = [n for n in order if (n // width * 4 // height) * 4 + n % width * 4 // width == window]
        chosen += inside[: keep // 2 // 16]
    return chosen + [n for n in falling(cls_attention.tolist()) if n not in chosen][: keep - len(chosen)]


def tops(keep: int, projected: Tensor, cls_attention: Tensor, alpha: float = 0.5, lambda_: float = 0.5) -> list[int]:
    like, relevance = table(projected), cls_attention.tolist()
    picks = [falling(relevance)[0]]
    while len(picks) < keep:
        rest = [n for n in range(len(like)) if n not in picks]
        best = {j: max(like[s][j] for s in picks) for j in rest}
        terms = [
            {n: relevance[n] for n in rest},
            {n: alpha * (1 - best[n]) for n in rest},
            {n: lambda_ * sum(max(0.0, like[n][j] - best[j]) for j in rest) for n in rest},
        ]
        factors = (1.0, alpha, lambda_)
        means = [sum(term.values()) / len(rest) / factor for term, factor in zip(terms, factors, strict=True)]
        picks.append(first_best({n: sum(t[n] / m for t, m in zip(terms, means, strict=True)) for n in rest}))
    return picks
