"""Proportional attention: a token that stands for n patches counts as n (ToMe, Bolya et al., ICLR 2023, section 3).

The logarithm of n is added to the attention logits of the token's key, in every layer and while answering. n is the
number of patches that stage 1 merged into the token, plus those of the tokens that stage 2 merged into it. Text counts
once. Votes for a drop are unchanged: they compare what single tokens say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from duet.engine.compat import attention_backend
from duet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from duet.edit import Edit
    from duet.engine.tokens import Tokens
    from duet.types import Placement, Reduction

#: Attention kernels that take a number to add to each logit.
KERNELS = ("eager", "sdpa")


def check_kernel(config: Any) -> None:
    """Refuse kernels without such numbers.

    Raises:
        UserError: the model's kernel is not one of `KERNELS`.
    """
    kernel = attention_backend(config)
    if kernel not in KERNELS:
        raise UserError(
            f"attention=proportional needs attn_implementation {' or '.join(KERNELS)}; the model has {kernel}: load it "
            "with one of them, or leave attention=plain"
        )


def prompt_sizes(placement: Placement, reductions: list[Reduction]) -> Tensor:
    """`[B, T]`, the patches that each prompt column stands for after stage 1; 1 for text.

    Args:
        placement: of the reduced pictures.
        reductions: one per group of units, with `sizes`.
    """
    sizes = torch.ones(placement.layout.valid.shape, device=placement.layout.valid.device)
    for part in placement.parts:
        if part.origin is None:
            continue
        group, unit, token = part.origin.to(sizes.device).unbind(1)
        own = torch.ones(len(group), device=sizes.device)
        for number, reduction in enumerate(reductions):
            assert reduction.sizes is not None
            mine = group == number
            table = reduction.sizes.to(sizes)
            found = table[unit.where(mine, 0), token.where(mine, 0)]
            own = torch.where(mine, found, own)
        sizes = sizes.masked_scatter(part.mask.to(sizes.device), own)
    return sizes.clamp_min(1)


def after_edit(sizes: Tensor, edit: Edit, tokens: Tokens) -> Tensor:
    """The sizes of prompt columns, `[B, T0]`, after an edit of the tokens that stage 2 ranked."""
    sizes = sizes.to(tokens.columns.device)
    own = tokens.at(sizes)
    into = edit.assign
    total = own.new_zeros(len(own), edit.kept.shape[1]).scatter_add(1, into.clamp_min(0), own * (into >= 0))
    columns = tokens.columns.gather(1, edit.kept.clamp_min(0)).masked_fill(edit.kept < 0, sizes.shape[1])
    return pad(sizes, (0, 1)).scatter(1, columns, total)[:, :-1]


def added(sizes: Tensor | None, tokens: Tokens) -> Tensor | None:
    """`[B, T]`, what is added to the logits of these tokens' keys; None for plain attention."""
    return None if sizes is None else tokens.at(sizes.to(tokens.columns.device)).clamp_min(1).log()


def weighted(mask: Any, bias: Tensor | None, hidden: Tensor, keys: int) -> Any:
    """A mask for the attention kernel, with the bias of the keys.

    Args:
        mask: `[B, 1, S, T]`, bool or added to the logits; None: every token sees all up to itself.
        bias: `[B, T']`, of the first T' keys; the others have 0. None changes nothing.
        hidden: `[B, S, D]`, the queries, which are the last S of the keys.
        keys: T.

    Returns:
        `[B, 1, S, T]`, added to the logits.
    """
    if bias is None:
        return mask
    device = hidden.device
    if mask is None:
        own = torch.arange(keys - hidden.shape[1], keys, device=device)
        mask = (torch.arange(keys, device=device) <= own[:, None])[None, None]
    if mask.dtype == torch.bool:
        lowest = torch.finfo(hidden.dtype).min
        mask = torch.zeros((), dtype=hidden.dtype, device=device).masked_fill(~mask, lowest)
    return mask + pad(bias.to(mask), (0, keys - bias.shape[1]))[:, None, None]
