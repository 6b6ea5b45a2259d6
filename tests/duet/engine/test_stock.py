"""Without pictures, with method `none`, and after detaching the model is the stock one, bit for bit."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import DynamicCache, LlavaForConditionalGeneration

import duet
from tests.duet.engine.cases import CASES, FEW
from tests.tiny_llava import collate, make_row, prompt_of, tiny_llava

GREEDY = {"max_new_tokens": 5, "do_sample": False}
PICTURES = collate([prompt_of(make_row(1, text, seed=text)) for text in (4, 8)])
TEXT = collate([prompt_of(make_row(0, text, seed=text)) for text in (4, 8)])
ALONE = collate([prompt_of(make_row(1, seed=3))])


def state_of(model: Any) -> dict[str, set[str]]:
    """Every attribute, and every key of every dict among them (hooks, parameters), of every module."""
    found = {}
    for name, module in model.named_modules():
        tables = {key: value for key, value in vars(module).items() if isinstance(value, dict)}
        found[name] = set(vars(module)) | {f"{key}.{entry}" for key, table in tables.items() for entry in table}
    return found


@torch.no_grad()
def test_method_none_gives_stock_logits_bit_for_bit(kind):
    model, _, placeholders = kind
    batch = collate([prompt_of(make_row(1, text, seed=text, placeholders=placeholders)) for text in (4, 8)])
    wanted, tokens = model(**batch).logits, model.generate(**batch, **GREEDY)
    CASES["none"].attach(model)
    real = batch["attention_mask"].bool()
    assert torch.equal(model(**batch).logits[real], wanted[real])
    assert torch.equal(model.generate(**batch, **GREEDY), tokens)


@pytest.mark.parametrize("name", FEW)
@torch.no_grad()
def test_text_alone_runs_stock_bit_for_bit(tiny, name):
    labels = TEXT["input_ids"].clone()
    wanted, tokens, loss = tiny(**TEXT), tiny.generate(**TEXT, **GREEDY), tiny(**TEXT, labels=labels).loss
    CASES[name].attach(tiny)
    found = tiny(**TEXT)
    assert torch.equal(found.logits, wanted.logits)
    assert type(found.past_key_values) is DynamicCache
    assert torch.equal(tiny.generate(**TEXT, **GREEDY), tokens)
    assert torch.equal(tiny(**TEXT, labels=labels).loss, loss)


@pytest.mark.parametrize("name", FEW)
@torch.no_grad()
def test_detached_the_model_is_stock_bit_for_bit(tiny, name):
    wanted, tokens = tiny(**PICTURES).logits, tiny.generate(**PICTURES, **GREEDY)
    before = state_of(tiny)  # with the hooks that the stock forward itself installs
    CASES[name].attach(tiny)
    if name != "none":
        assert not torch.equal(tiny(**PICTURES).logits, wanted)
    duet.detach(tiny)
    assert torch.equal(tiny(**PICTURES).logits, wanted)
    assert torch.equal(tiny.generate(**PICTURES, **GREEDY), tokens)
    assert state_of(tiny) == before
    with pytest.raises(ValueError, match="no compression is attached"):
        duet.detach(tiny)


@torch.no_grad()
def test_attaching_again_replaces_what_was_attached(tiny):
    tiny(**PICTURES)
    before = state_of(tiny)
    CASES["duet_c"].attach(tiny)
    wanted = tiny(**PICTURES).logits
    CASES["visionzip"].attach(tiny)
    CASES["duet_c"].attach(tiny)
    assert torch.equal(tiny(**PICTURES).logits, wanted)
    duet.detach(tiny)
    assert state_of(tiny) == before


@torch.no_grad()
def test_a_failed_attach_leaves_the_old_one(tiny):
    CASES["duet_c"].attach(tiny)
    wanted = tiny(**PICTURES).logits
    with pytest.raises(duet.errors.UserError):
        duet.attach(tiny, "no such method", CASES["duet_c"].budget)
    assert torch.equal(tiny(**PICTURES).logits, wanted)


@torch.no_grad()
def test_a_copy_is_attached_to_itself(tiny):
    stock = tiny(**PICTURES).logits
    CASES["duet"].attach(tiny)
    wanted = tiny(**PICTURES).logits
    copy = deepcopy(tiny)
    duet.detach(tiny)
    assert torch.equal(tiny(**PICTURES).logits, stock)
    assert torch.equal(copy(**PICTURES).logits, wanted)
    copy.lm_head.weight.zero_()
    assert (copy(**PICTURES).logits == 0).all()
    duet.detach(copy)
    assert state_of(copy) == state_of(tiny)
    assert not torch.equal(tiny(**PICTURES).logits, copy(**PICTURES).logits)


@torch.no_grad()
def test_saved_while_attached_plain_transformers_loads_it(tiny, tmp_path):
    wanted, before = tiny(**PICTURES).logits, tiny.state_dict()
    CASES["duet"].attach(tiny)
    assert list(tiny.state_dict()) == list(before)
    tiny.save_pretrained(tmp_path)
    loaded, info = LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert loaded.config.architectures == ["LlavaForConditionalGeneration"]
    assert all(torch.equal(weight, before[key]) for key, weight in loaded.state_dict().items())
    assert len(loaded.state_dict()) == len(before)
    assert torch.equal(loaded.eval()(**PICTURES).logits, wanted)


@torch.no_grad()
def test_hidden_states_and_attentions_of_every_layer(tiny):
    """Layers after a drop return fewer tokens; everything else is as in stock."""
    CASES["duet_c"].attach(tiny)
    tiny.set_attn_implementation("eager")
    out = tiny(**ALONE, output_hidden_states=True, output_attentions=True)
    tiny.set_attn_implementation("sdpa")
    whole = ALONE["input_ids"].shape[1]
    entering = [count + whole - 16 for count in (9, 9, 5, 5, 2, 2)]
    assert [rows.shape[-2:] for rows in out.attentions] == [(length, length) for length in entering]
    # as in stock, the last one is the output: normed, and here in the columns of the prompt
    assert [states.shape[1] for states in out.hidden_states] == [entering[0], *entering[:-1], whole]
    assert torch.equal(tiny.lm_head(out.hidden_states[-1]), out.logits)


@torch.no_grad()
def test_tuples_and_positional_arguments(tiny):
    CASES["duet_c"].attach(tiny)
    wanted = tiny(**ALONE)
    found = tiny(**ALONE, return_dict=False)
    assert isinstance(found, tuple) and torch.equal(found[0], wanted.logits)
    found = tiny(ALONE["input_ids"], ALONE["pixel_values"], ALONE["attention_mask"])
    assert torch.equal(found.logits, wanted.logits)
    labels = ALONE["input_ids"].masked_fill(ALONE["input_ids"] == 95, -100)
    loss = tiny(**ALONE, labels=labels).loss
    found = tiny(**ALONE, labels=labels, return_dict=False)
    assert torch.equal(found[0], loss) and torch.equal(found[1], wanted.logits)
    body = tiny.model(ALONE["input_ids"], ALONE["pixel_values"])
    assert torch.equal(tiny.lm_head(body.last_hidden_state), wanted.logits)


@torch.no_grad()
def test_logits_to_keep(tiny):
    CASES["duet_c"].attach(tiny)
    whole = tiny(**ALONE).logits
    torch.testing.assert_close(tiny(**ALONE, logits_to_keep=3).logits, whole[:, -3:])
    some = torch.tensor([0, 20])
    torch.testing.assert_close(tiny(**ALONE, logits_to_keep=some).logits, whole[:, some])


@torch.no_grad()
def test_without_a_cache(tiny):
    CASES["duet_c"].attach(tiny)
    out = tiny(**ALONE, use_cache=False)
    assert out.past_key_values is None
    torch.testing.assert_close(out.logits, tiny(**ALONE).logits)


@torch.no_grad()
def test_a_given_empty_cache_is_filled(tiny):
    CASES["duet_c"].attach(tiny)
    cache = DynamicCache(config=tiny.config)
    wanted = tiny(**ALONE)
    out = tiny(**ALONE, past_key_values=cache)
    assert out.past_key_values is cache
    assert [layer.get_seq_length() for layer in cache.layers] == [
        layer.get_seq_length() for layer in wanted.past_key_values.layers
    ]


def test_flash_attention_that_is_not_installed_is_reported_by_transformers(tiny):
    from transformers.utils import is_flash_attn_2_available

    if is_flash_attn_2_available():
        pytest.skip("flash-attn is installed")
    CASES["duet"].attach(tiny)
    with pytest.raises(ImportError, match=r"[Ff]lash"):
        tiny.set_attn_implementation("flash_attention_2")


@torch.no_grad()
def test_bfloat16():
    model = tiny_llava().to(torch.bfloat16)
    CASES["duet"].attach(model)
    out = model(**{**ALONE, "pixel_values": ALONE["pixel_values"].to(torch.bfloat16)})
    assert out.logits.dtype == torch.bfloat16 and out.logits.isfinite().all()
    assert model.generate(**ALONE, **GREEDY).shape == (1, ALONE["input_ids"].shape[1] + 5)
