"""Merge patches into anchors. Pure functions of features, keys and an assignment."""

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
    length = order.shape[1]
    step = max(1, length // count)
    is_anchor = torch.zeros(length, dtype=torch.bool, device=order.device)
    is_anchor[torch.arange(count, device=order.device) * step] = True
    return order[:, is_anchor], order[:, ~is_anchor]


def nearest_anchor(keys: Tensor, anchors: Tensor, members: Tensor) -> Tensor:
    """The anchor with the largest cosine similarity of keys, for each member.

    Args:
        keys: `[B, N, Dk]`.
        anchors: `[B, C]` and members: `[B, P]` patch indices.

    Returns:
        `[B, P]` long, positions in `anchors`.
    """
    unit = normalize(keys, dim=-1)
    return (take(unit, members) @ take(unit, anchors).transpose(1, 2)).argmax(-1)


def add_member_means(features: Tensor, anchors: Tensor, members: Tensor, cluster: Tensor) -> Tensor:
    """Anchor feature plus the mean of its members' features; an anchor without members stays as it is.

    The sum, not a mean over the whole cluster, is what both released codes compute (norms about double).

    Args:
        features: `[B, N, D]`.
        anchors: `[B, C]`, members: `[B, P]` patch indices; cluster: `[B, P]` positions in `anchors`.

    Returns:
        `[B, C, D]`, differentiable in features.
    """
    target = take(features, anchors)
    where = cluster[..., None].expand(-1, -1, target.shape[-1])
    sums = torch.zeros_like(target).scatter_add(1, where, take(features, members))
    sizes = torch.zeros_like(target[..., 0]).scatter_add(1, cluster, torch.ones_like(cluster, dtype=target.dtype))
    return target + sums / sizes.clamp_min(1)[..., None]
