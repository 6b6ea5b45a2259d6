"""Stage 1 of one picture in plain Python loops, one number at a time, following original code and paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CLS = -1


@dataclass
class Picture:
    """One picture after the encoder.

    Attributes:
        features: `[N, D]` patches, cls: `[D]` or None, keys: `[N, Dk]` averaged over heads.
        attention: `[N + 1, N + 1]` with CLS in front (`[N, N]` without CLS), summed over heads for the CLS row.
    """

    features: Tensor
    cls: Tensor | None
    keys: Tensor
    attention: Tensor

    def score(self, rule: str) -> list[float]:
        """Score of every patch: attention of CLS, or attention received from all tokens."""
        first = int(self.cls is not None)
        row = self.attention[0] if rule == "cls_row" else sum(self.attention)
        return [float(value) for value in row[first:]]


@dataclass
class Reduced:
    """Output tokens in order: their features, the patch that represents each, the patches merged into each."""

    features: list[Tensor]
    kept: list[int]
    merged: list[list[int]]


def best(numbers: list[int], scores: list[float], count: int) -> list[int]:
    """The best of some patches, best first, ties to the lower number."""
    return sorted(numbers, key=lambda number: (-scores[number], number))[:count]


def dominant_and_rest(picture: Picture, scores: list[float], dominant: int) -> tuple[Reduced, list[int]]:
    """CLS and the dominant patches, and the patches that are left."""
    patches = list(range(len(picture.features)))
    chosen = sorted(best(patches, scores, dominant - (picture.cls is not None)))
    reduced = Reduced([picture.features[patch] for patch in chosen], list(chosen), [[patch] for patch in chosen])
    if picture.cls is not None:
        reduced = Reduced([picture.cls, *reduced.features], [CLS, *reduced.kept], [[], *reduced.merged])
    return reduced, [patch for patch in patches if patch not in chosen]


def merge_pool(picture: Picture, reduced: Reduced, pool: list[int], contextual: int) -> Reduced:
    """Every step-th of the pool is an anchor; the others go to the anchor with the most similar key."""
    step = max(1, len(pool) // contextual)
    anchors = [pool[number * step] for number in range(contextual)]
    clusters: dict[int, list[int]] = {anchor: [] for anchor in anchors}
    for patch in pool:
        if patch not in clusters:
            near = [float(torch.cosine_similarity(picture.keys[patch], picture.keys[a], dim=0)) for a in anchors]
            clusters[anchors[near.index(max(near))]].append(patch)
    for anchor, members in clusters.items():
        total = sum((picture.features[member] for member in members), torch.zeros_like(picture.features[0]))
        reduced.features.append(picture.features[anchor] + total / max(1, len(members)))
        reduced.kept.append(anchor)
        reduced.merged.append([anchor, *members])
    return reduced


def visionzip(picture: Picture, dominant: int, contextual: int, width: int, score: str = "cls_row") -> Reduced:
    """VisionZip: everything that is not dominant is merged, in raster order."""
    reduced, rest = dominant_and_rest(picture, picture.score(score), dominant)
    return merge_pool(picture, reduced, rest, contextual) if contextual else reduced


def released(picture: Picture, dominant: int, contextual: int, width: int, score: str = "cls_row") -> Reduced:
    """DUET as released: only the best `width * contextual` of the others are merged, in order of score."""
    scores = picture.score(score)
    reduced, rest = dominant_and_rest(picture, scores, dominant)
    if not contextual:
        return reduced
    return merge_pool(picture, reduced, best(rest, scores, min(width * contextual, len(rest))), contextual)


def paper(picture: Picture, dominant: int, contextual: int, width: int, score: str = "cls_row") -> Reduced:
    """Algorithm 1: each of the best others becomes the mean of the `width` others that it attends to most."""
    scores = picture.score(score)
    reduced, rest = dominant_and_rest(picture, scores, dominant)
    first = int(picture.cls is not None)
    for centroid in best(rest, scores, contextual):
        looks = [float(value) for value in picture.attention[centroid + first, first:]]
        near = best(rest, looks, width)
        reduced.features.append(sum(picture.features[patch] for patch in near) / len(near))
        reduced.kept.append(centroid)
        reduced.merged.append(near)
    return reduced


RULES = {"visionzip": visionzip, "released": released, "paper": paper}
