"""Choose anchors, and assign patches to them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from duet.ops.gather import take


def spaced(order: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Every step-th entry of a list as anchors, the others as members.

    `step = max(1, P // count)`; VisionZip@dvlab-research and DUET's clip_encoder_cw.py share this rule.

    Args:
        order: `[B, P]` patch indices.
        count: number of anchors C, 1 <= C <= P.

    Returns:
        anchors `[B, C]` and members `[B, P - C]`, both in the order given.
    """
    step = max(1, order.shape[1] // count)
    groups, after = order[:, : count * step].unflatten(1, (count, step)), order[:, count * step :]
    return groups[..., 0], torch.cat([groups[..., 1:].flatten(1), after], 1)


def nearest_anchor(keys: Tensor, anchors: Tensor, members: Tensor) -> Tensor:
    """For each member, the anchor whose key has the largest cosine similarity to its own.

    Args:
        keys: `[B, N, Dk]`.
        anchors: `[B, C]` and members: `[B, P]` patch indices.

    Returns:
        `[B, P]` long, positions in `anchors`.
    """
    unit = normalize(keys, dim=-1)
    return (take(unit, members) @ take(unit, anchors).transpose(1, 2)).argmax(-1)
