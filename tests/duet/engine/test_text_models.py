"""Supported text models: those whose layers were checked with the loop and the ranking; others are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration

from duet.engine.attachment import is_attached
from duet.errors import UserError
from tests.duet.engine.cases import CASES, FEW
from tests.plain_duet import eager, run
from tests.tiny_llava import LAYERS, VOCAB, collate, make_row, prompt_of, tiny_llava
from tests.tiny_parts import draw_weights

LOGITS = {"atol": 1e-4, "rtol": 0}


def llava_on(text: str, **options: Any) -> Any:
    """The tiny LLaVA-1.5 with a text model of any type."""
    config = tiny_llava().config
    sizes = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": VOCAB, "max_position_embeddings": 256,
        "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    whole = LlavaConfig(
        vision_config=config.vision_config,
        text_config=AutoConfig.for_model(text, **{**sizes, **options}),
        image_token_id=config.image_token_id,
        image_seq_length=config.image_seq_length,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    return draw_weights(LlavaForConditionalGeneration(whole), 0, tied=bool(options.get("tie_word_embeddings")))


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("text", ["llama", "mistral", "qwen2"])
@torch.no_grad()
def test_checked_text_models_equal_the_plain_restatement(text, name):
    model = llava_on(text)
    row = prompt_of(make_row(2, seed=4))
    wanted = run(eager(model), row, CASES[name].plan)
    found = CASES[name].attach(model)(**collate([row])).logits[0, wanted.columns]
    torch.testing.assert_close(found, wanted.logits, **LOGITS)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("granite", "GraniteModel"),  # multiplies embeddings and residuals
        ("qwen3", "Qwen3Model"),  # normalises q and k
        ("cohere", "CohereModel"),  # rotates interleaved pairs, runs attention and MLP side by side
        ("gemma2", "Gemma2Model"),
        ("phi3", "Phi3Model"),
        ("olmo2", "Olmo2Model"),
    ],
)
@pytest.mark.parametrize("method", ["none", "visionzip_c", "duet"])
def test_others_are_refused_by_name(text, name, method):
    model = llava_on(text)
    with pytest.raises(UserError, match=rf"is {name}; .* of LlamaModel, MistralModel, Qwen2Model"):
        CASES[method].attach(model)
    assert not is_attached(model) and "forward" not in vars(model.model.language_model)


def test_a_subclass_of_a_known_one_is_taken():
    """FSDP makes one of every module that it shards."""
    model = tiny_llava()
    lm = model.model.language_model
    lm.__class__ = type("FSDPLlamaModel", (type(lm),), {})
    CASES["duet"].attach(model)
