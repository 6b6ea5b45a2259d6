"""Prompts that come as embeddings, and features that a forward returns."""

from __future__ import annotations

import warnings

import pytest
import torch

from tests.duet.engine.cases import CASES
from tests.families import FAMILIES
from tests.tiny_llava import collate, make_row, prompt_of

pytestmark = pytest.mark.usefixtures("no_grad")


def test_a_prompt_of_embeddings_warns_once(family):
    """It runs as stock does, since what its pictures are cannot be known."""
    model = family.build()
    embeds = model.get_input_embeddings()(torch.randint(3, family.words, (1, 9)))
    wanted = model(inputs_embeds=embeds).logits
    family.attach(model)
    with pytest.warns(UserWarning, match="was passed as inputs_embeds.* runs uncompressed; pass input_ids and pixels"):
        found = model(inputs_embeds=embeds).logits
    torch.testing.assert_close(found, wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(inputs_embeds=embeds)


def test_embeddings_that_hold_no_prompt_do_not_warn(tiny):
    """Text after a shortened prompt, one token, and a model without compression."""
    embed, batch = tiny.get_input_embeddings(), collate([prompt_of(make_row(1, seed=1))])
    CASES["duet"].attach(tiny)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache = tiny(**batch).past_key_values
        wanted = tiny(input_ids=torch.tensor([[7, 8]]), past_key_values=cache).logits
        cache = tiny(**batch).past_key_values
        found = tiny(inputs_embeds=embed(torch.tensor([[7, 8]])), past_key_values=cache).logits
        tiny(inputs_embeds=embed(torch.tensor([[7]])))
        CASES["none"].attach(tiny)
        tiny(inputs_embeds=embed(torch.tensor([[7, 8]])))
    torch.testing.assert_close(found, wanted)


def test_embeddings_with_pixels_are_refused(family):
    model = family.attach(family.build())
    batch = family.collate(family.prompts[:1])
    embeds = model.get_input_embeddings()(batch["input_ids"])
    for both in (False, True):
        inputs = {**batch, "inputs_embeds": embeds}
        if not both:
            del inputs["input_ids"]
        for call in (model, lambda **inputs: model.generate(**inputs, max_new_tokens=2)):
            with pytest.raises(ValueError, match="pass input_ids, not inputs_embeds"):
                call(**inputs)


@pytest.mark.parametrize("return_dict", [True, False])
def test_a_forward_returns_the_features_as_stock_does(family, return_dict):
    """Under `none` all of them; under a method those that entered, placeholder after placeholder."""
    model, batch = family.build(), family.collate(family.prompts)
    names = ("image_hidden_states", "video_hidden_states")
    stock = model(**batch, return_dict=return_dict)
    family.attach(model, "none")
    found = model(**batch, return_dict=return_dict)
    assert len(found) == len(stock)
    if not return_dict:
        return
    family.attach(model, "visionzip_c")
    reduced = model(**batch)
    for name in names:
        wanted = getattr(stock, name, None)
        if wanted is None:
            assert getattr(found, name, None) is None
            continue
        torch.testing.assert_close(getattr(found, name), wanted.flatten(0, -2), atol=1e-5, rtol=0)
        kept = getattr(reduced, name)
        assert kept.shape[1] == wanted.shape[-1] and 0 < len(kept) < len(wanted.flatten(0, -2))


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 2}])
def test_seconds_of_videos_follow_their_row_as_a_list_too(options):
    """Qwen2.5-VL's processor makes a list of them."""
    family = FAMILIES["qwen2_5_vl"]
    model, batch = family.attach(family.build()), family.collate(family.prompts)
    seconds = [1.0 + number for number in range(len(batch["video_grid_thw"]))]
    options = {**options, "max_new_tokens": 3, "do_sample": False}
    wanted = model.generate(**batch, second_per_grid_ts=torch.tensor(seconds), **options)
    assert torch.equal(model.generate(**batch, second_per_grid_ts=seconds, **options), wanted)
