"""FLOPs and cache bytes against torch's own counter on tiny models of the same shape."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from duet import attach
from duet.budget import Backbone, Budget, Decoder, Tower, find_backbone
from duet.budget.cost import layer_flops, tower_flops
from tests.tiny_llava import BUDGET, collate, make_row, tiny_llava

DECODER = Decoder(layers=4, width=64, mlp_width=96, heads=4, kv_heads=2, head_dim=16, vocabulary=50)
TOWER = Tower(layers=3, width=32, mlp_width=80, heads=4, patch_values=3 * 8 * 8)
BACKBONE = Backbone("tiny", TOWER, ((32, 64), (64, 64)), DECODER, patches=16)


@pytest.fixture(scope="module")
def language_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).eval()


def counted(model: torch.nn.Module, parts: tuple[str, ...], *args, **kwargs) -> tuple[int, object]:
    """Operations of the named parts: matrix products only, without the tables of the rotary embedding."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = model(*args, **kwargs)
    counts = counter.get_flop_counts()
    return sum(sum(counts[part].values()) for part in parts), output


def test_prefill_decode_and_cache_of_an_unreduced_prompt(language_model):
    layers = tuple(f"LlamaForCausalLM.model.layers.{number}" for number in range(4))
    parts = (*layers, "LlamaForCausalLM.lm_head")
    budget, text = Budget(), 7
    expected = budget.flops(BACKBONE, text=text)
    ids = torch.arange(16 + text)[None]
    prefill, output = counted(language_model, parts, ids, logits_to_keep=1, use_cache=True)
    assert prefill == expected.prefill
    held = [layer.keys.nbytes + layer.values.nbytes for layer in output.past_key_values.layers]
    assert tuple(held) == budget.kv_bytes(BACKBONE, text=text, bytes_per_value=4)
    decode, _ = counted(language_model, parts, ids[:, :1], past_key_values=output.past_key_values)
    assert decode == expected.decode


def test_tower(language_model):
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        attn_implementation="eager",
    )
    measured, _ = counted(CLIPVisionModel(config).eval(), ("CLIPVisionModel",), torch.zeros(1, 3, 32, 32))
    assert measured == tower_flops(TOWER, 16, cls=True)


def test_windowed_tower_layers_attend_over_their_window():
    full = Tower(layers=4, width=8, mlp_width=8, heads=1, patches_per_token=4)
    windowed = Tower(layers=4, width=8, mlp_width=8, heads=1, patches_per_token=4, window=16, full_layers=1)
    tokens = 4 * 100
    saved = 3 * 2 * 2 * tokens * (tokens - 16) * 8
    assert tower_flops(full, 100, cls=False) - tower_flops(windowed, 100, cls=False) == saved
    assert tower_flops(full, 4, cls=False) == tower_flops(windowed, 4, cls=False)


def test_a_reduced_prompt_costs_what_its_layers_see():
    budget = Budget(6, 2, layers=(2,), ratios=(0.5,))
    flops = budget.flops(BACKBONE, text=5)
    head = 2 * 64 * 50
    assert flops.prefill == 2 * layer_flops(DECODER, 13, 13**2) + 2 * layer_flops(DECODER, 9, 9**2) + head
    assert flops.decode == 2 * layer_flops(DECODER, 1, 14) + 2 * layer_flops(DECODER, 1, 10) + head
    assert flops.projector == 8 * 2 * (32 * 64 + 64 * 64)
    assert flops.tower == Budget().flops(BACKBONE, text=5).tower
    assert flops.total == flops.tower + flops.projector + flops.prefill
    assert budget.kv_bytes(BACKBONE, text=5) == (13 * 128, 13 * 128, 9 * 128, 9 * 128)


def test_causal_scores_are_those_of_a_query_and_what_it_may_see():
    budget = Budget(6, 2, layers=(2,), ratios=(0.5,))
    whole, causal = (budget.flops(BACKBONE, text=5, causal=causal) for causal in (False, True))
    hidden = sum((~torch.ones(size, size).tril().bool()).sum().item() for size in (13, 13, 9, 9))
    assert whole.prefill - causal.prefill == 2 * 2 * hidden * 4 * 16
    assert (whole.tower, whole.projector, whole.decode) == (causal.tower, causal.projector, causal.decode)


def test_a_projector_before_stage_1_sees_all_tokens():
    backbone = find_backbone("qwen2_5_vl").with_patches(400)
    assert Budget(30, 6).flops(backbone, text=5).projector == Budget().flops(backbone, text=5).projector


def test_all_tokens_cost_the_layers_that_the_stock_tower_runs_and_a_budget_those_of_the_engine():
    model, batch = tiny_llava(), collate([make_row()])
    backbone, ran = Backbone.from_config(model.config), []
    for layer in model.model.vision_tower.encoder.layers:
        layer.register_forward_hook(lambda *_: ran.append(1))
    for budget in (Budget(), BUDGET):
        if budget != Budget():
            attach(model, "duet_c", budget)
        ran.clear()
        with torch.no_grad():
            model(**batch)
        tower = replace(backbone.tower, layers=len(ran))
        assert budget.flops(backbone, text=6).tower == tower_flops(tower, 16, cls=True)


def test_costs_grow_with_the_budget_and_the_text():
    small, large = (Budget.solve(average=average) for average in (64, 128))
    for text in (10, 50):
        assert small.flops("llava15", text=text).total < large.flops("llava15", text=text).total
        assert sum(small.kv_bytes("llava15", text=text)) < sum(large.kv_bytes("llava15", text=text))
    assert small.flops("llava15", text=10).total < small.flops("llava15", text=50).total
