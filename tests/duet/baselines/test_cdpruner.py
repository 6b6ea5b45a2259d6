"""What is CDPruner's own: the sign of the relevance, windows of the question, and the end of the volume."""

from __future__ import annotations

import torch

from duet.baselines.cdpruner import conditional_relevance, select
from tests.duet.baselines.inputs import drawn


def test_patches_unlike_the_text_are_relevant():
    patches = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    relevance = conditional_relevance(patches, torch.tensor([[[1.0, 0.0]]]))
    torch.testing.assert_close(relevance, torch.tensor([[5e-7, 0.5, 1.0]]), atol=1e-6, rtol=0)


def test_padding_windows_say_nothing():
    inputs = drawn(batch=2)
    patches, texts = inputs["clip_image_embeds"], inputs["clip_text_embeds"]
    valid = torch.tensor([[True, False], [True, True]])
    relevance = conditional_relevance(patches, texts, valid)
    torch.testing.assert_close(relevance[:1], conditional_relevance(patches[:1], texts[:1, :1]))
    torch.testing.assert_close(relevance[1:], conditional_relevance(patches[1:], texts[1:]))
    assert conditional_relevance(patches, texts, torch.zeros_like(valid)).isfinite().all()


def test_beyond_the_rank_the_relevant_ones_follow_and_none_twice():
    """The released code repeats picks there: 107 different ones of 192 at a width of 96."""
    generator = torch.Generator().manual_seed(0)
    narrow = torch.randn(1, 40, 3, generator=generator)
    patches = torch.randn(1, 40, 5, generator=generator)
    text = torch.randn(1, 1, 5, generator=generator)
    kept = select(keep=20, projected=narrow, clip_image_embeds=patches, clip_text_embeds=text)[0]
    assert len(set(kept.tolist())) == 20
    best = conditional_relevance(patches, text)[0].argsort(descending=True)[:17]
    assert set(best.tolist()) <= set(kept.tolist())


def test_one_text_per_picture_may_come_flat():
    inputs = drawn()
    given = {key: inputs[key] for key in ("projected", "clip_image_embeds")}
    text = inputs["clip_text_embeds"][:, 0]
    flat = select(keep=7, clip_text_embeds=text, **given)
    assert flat.tolist() == select(keep=7, clip_text_embeds=text[:, None], **given).tolist()
