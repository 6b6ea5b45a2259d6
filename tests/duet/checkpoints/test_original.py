"""What the original layouts of all families share."""

from __future__ import annotations

import math

import torch

from duet.checkpoints import original


def test_new_rows_never_win_and_hardly_change_a_loss():
    torch.manual_seed(0)
    tensors = {name: torch.randn(512, 64) for name in original.EMBEDDINGS}
    before = tensors["lm_head.weight"]
    original.grow_vocabulary(tensors, 576)
    assert all(tensor.shape == (576, 64) for tensor in tensors.values())
    hidden = torch.randn(1000, 64)
    logits = hidden @ tensors["lm_head.weight"].T
    assert torch.equal(tensors["lm_head.weight"][:512], before)
    assert (logits.argmax(1) < 512).all()
    growth = logits.logsumexp(1) - logits[:, :512].logsumexp(1)
    assert growth.min() >= 0 and growth.max() <= math.log(576 / 512)


def test_vocabulary_that_is_large_enough_stays():
    tensors = {"lm_head.weight": torch.randn(512, 8)}
    same = tensors["lm_head.weight"]
    original.grow_vocabulary(tensors, 512)
    assert tensors["lm_head.weight"] is same
