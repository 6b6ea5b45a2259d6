"""What compression refuses, and that the message says what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache, StaticCache

import duet
from tests.duet.engine.cases import CASES
from tests.tiny_llava import IMAGE, collate, make_row, prompt_of, tiny_llava

pytestmark = pytest.mark.usefixtures("no_grad")

BATCH = collate([prompt_of(make_row(1, seed=1))])
LENGTH = BATCH["input_ids"].shape[1]


@pytest.fixture
def attached(tiny: Any) -> Any:
    """The shared model under DUET."""
    return CASES["duet_c"].attach(tiny)


def test_placeholders_that_do_not_fit(attached):
    ids = BATCH["input_ids"].clone()
    ids[0, 2] = 5
    with pytest.raises(ValueError, match=r"hold \[15\] image placeholders, but a picture has 16"):
        attached(input_ids=ids, pixel_values=BATCH["pixel_values"])
    with pytest.raises(ValueError, match=r"placeholders for \[1\] pictures, but got 2"):
        attached(input_ids=BATCH["input_ids"], pixel_values=BATCH["pixel_values"].repeat(2, 1, 1, 1))


def test_more_tokens_than_placeholders(tiny):
    duet.attach(tiny, "visionzip_c", duet.Budget(dominant=12, contextual=5))
    with pytest.raises(ValueError, match="17 tokens from a picture that has only 16 placeholders"):
        tiny(**BATCH)
    duet.attach(tiny, "visionzip_c", duet.Budget(dominant=17, contextual=1))
    with pytest.raises(duet.errors.UserError, match=r"asked for 18 tokens .* the picture has 16 and CLS"):
        tiny(**BATCH)


def test_embeddings_in_place_of_ids(attached):
    embeds = attached.get_input_embeddings()(BATCH["input_ids"])
    with pytest.raises(ValueError, match="pass input_ids, not inputs_embeds"):
        attached(inputs_embeds=embeds, pixel_values=BATCH["pixel_values"])


def test_features_in_place_of_pixels(attached):
    features = attached.get_image_features(BATCH["pixel_values"])
    with pytest.raises(ValueError, match="pass pixel_values, not mm_encoder_outputs"):
        attached(input_ids=BATCH["input_ids"], mm_encoder_outputs={"image": features})


def test_masks_that_are_not_two_dimensional(attached):
    mask = torch.ones(1, 1, LENGTH, LENGTH).tril()
    with pytest.raises(ValueError, match="2-D attention mask"):
        attached(**{**BATCH, "attention_mask": mask})
    cache = attached(**BATCH).past_key_values
    with pytest.raises(ValueError, match="2-D attention mask"):
        attached(input_ids=torch.tensor([[5]]), past_key_values=cache, attention_mask=torch.ones(1, 1, 1, LENGTH + 1))


def test_static_caches(attached):
    with pytest.raises(ValueError, match="needs a DynamicCache, got StaticCache"):
        attached(**BATCH, past_key_values=StaticCache(attached.config, max_cache_len=64))
    with pytest.raises(ValueError, match="ask generate for cache_implementation='static'"):
        attached.generate(**BATCH, max_new_tokens=2, past_key_values=StaticCache(attached.config, max_cache_len=64))
    with pytest.raises(ValueError, match="needs a DynamicCache, got StaticCache"):
        attached.generate(**BATCH, max_new_tokens=2, cache_implementation="offloaded_static")


def test_new_pictures_after_a_filled_cache(attached):
    cache = attached(**BATCH).past_key_values
    with pytest.raises(ValueError, match="new pictures after a filled cache"):
        attached(**BATCH, past_key_values=cache)
    cache = attached(input_ids=torch.tensor([[5, 6]]), past_key_values=DynamicCache()).past_key_values
    with pytest.raises(ValueError, match="new pictures after a filled cache"):
        attached(**BATCH, past_key_values=cache)


@pytest.mark.parametrize("use_cache", [True, False])
def test_packed_sequences(attached, use_cache):
    positions = torch.cat([torch.arange(LENGTH - 3), torch.arange(3)])[None]
    with pytest.raises(ValueError, match="packed sequences"):
        attached(
            input_ids=BATCH["input_ids"],
            pixel_values=BATCH["pixel_values"],
            position_ids=positions,
            use_cache=use_cache,
        )


def test_a_prompt_that_ends_with_a_picture(attached):
    row = prompt_of(make_row(1, seed=1))
    row.ids = torch.cat([row.ids[18:], torch.full((16,), IMAGE)])
    with pytest.raises(ValueError, match=r"prompt rows \[1\] end with a picture"):
        attached(**collate([prompt_of(make_row(1, seed=2)), row]))
    CASES["none"].attach(attached)
    assert attached(**collate([row])).logits[0, -1].any()


def test_labels_with_logits_to_keep(attached):
    with pytest.raises(ValueError, match="leave logits_to_keep"):
        attached(**BATCH, labels=BATCH["input_ids"], logits_to_keep=2)


def test_several_feature_layers_or_another_strategy(attached):
    with pytest.raises(ValueError, match="one feature layer"):
        attached(**BATCH, vision_feature_layer=[-2, -1])
    with pytest.raises(ValueError, match="feature_layer 7: the tower has 3 layers"):
        attached(**BATCH, vision_feature_layer=7)
    with pytest.raises(ValueError, match="vision_feature_select_strategy 'full'"):
        attached(**BATCH, vision_feature_select_strategy="full")


def test_data_parallel_replicas(attached):
    attached.model._is_replica = True
    try:
        with pytest.raises(ValueError, match="one process per GPU"):
            attached(**BATCH)
    finally:
        del attached.model._is_replica


def test_sliding_windows():
    """Equal to no window as long as everything fits in, refused from there on."""
    wide, narrow, free = (tiny_llava("mistral", sliding_window=window) for window in (64, 12, None))
    for model in (wide, narrow, free):
        CASES["duet_c"].attach(model)
    tokens = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(wide.generate(**BATCH, **tokens), free.generate(**BATCH, **tokens))
    with pytest.raises(ValueError, match="18 tokens are more than the sliding window of 12 of this mistral model"):
        narrow(**BATCH)
    with pytest.raises(ValueError, match="65 tokens are more than the sliding window of 64"):
        wide.generate(**BATCH, max_new_tokens=60, do_sample=False)


def test_a_forward_replaced_by_another_library(tiny):
    lm = tiny.model.language_model
    lm.forward = lambda *args, **kwargs: None
    try:
        with pytest.raises(ValueError, match="something else replaced forward of this LlamaModel"):
            CASES["duet"].attach(tiny)
    finally:
        del lm.forward
    with pytest.raises(ValueError, match=r"call duet\.attach first"), duet.record(tiny):
        pass
