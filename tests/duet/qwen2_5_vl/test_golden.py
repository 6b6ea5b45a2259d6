"""Qwen2.5-VL against the numbers of the original code (see tests/golden_qwen.py for what they are)."""

from __future__ import annotations

import pytest
import torch

import duet
from duet.budget import Budget
from duet.engine.attachment import attached
from tests import golden_qwen as golden

SHARES = Budget(dominant=0.65, contextual=0.05)
STAGES = {"layers": (14, 21), "ratios": (0.5, 0.25)}
RELEASED = {"ratio_base": "compounding"}
ZIP = {"contextual_merge": "visionzip"}
CASES = {
    "baseline": ("none", None, {}),
    "s1_mod_ratio": ("visionzip_c", SHARES, {}),
    "s1_mod_100_20": ("visionzip_c", Budget(100, 20), {}),
    "s1_mod_33_7": ("visionzip_c", Budget(33, 7), {}),
    "s1_ori_ratio": ("visionzip", SHARES, {}),
    "s1_ori_100_20": ("visionzip", Budget(100, 20), {}),
    "s1_ori_33_7": ("visionzip", Budget(33, 7), {}),
    "duet_mod_100_20": ("duet", Budget(100, 20, **STAGES), RELEASED),
    "duet_ori_100_20": ("duet", Budget(100, 20, **STAGES), {**RELEASED, **ZIP}),
    "duet_mod_101_22_r0.5_0.0": ("duet", Budget(101, 22, layers=(14, 21), ratios=(0.5, 0.0)), RELEASED),
    "duet_fixed_100_20": ("duet", Budget(100, 20, **STAGES), {}),
    "duet_fixed_101_22_r0.5_0.0": ("duet", Budget(101, 22, layers=(14, 21), ratios=(0.5, 0.0)), {}),
}


def test_every_tag_is_covered():
    assert {name.rsplit(".", 1)[0] for name in golden.facts()} == set(CASES)


@pytest.fixture(scope="module")
def model():
    return golden.tiny_qwen()


class PositionsPerLayer:
    """Notes the rotary tables that some layers get, call by call."""

    def __init__(self, model, layers):
        self.seen = {number: [] for number in layers}
        self.lm = model.model.language_model
        self.handles = [
            self.lm.layers[number].register_forward_pre_hook(self.note(number), with_kwargs=True) for number in layers
        ]

    def note(self, number):
        def hook(layer, args, kwargs):
            self.seen[number].append(kwargs["position_embeddings"])

        return hook

    def check(self, number, call, positions):
        """The layer's tables in a call are those of positions `[3, T]`."""
        tables = self.lm.rotary_emb(torch.zeros(1), position_ids=torch.as_tensor(positions)[:, None])
        for seen, table in zip(self.seen[number][call], tables, strict=True):
            torch.testing.assert_close(seen, table, atol=1e-6, rtol=0)

    def remove(self):
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("tag", CASES)
def test_inference(model, tag):
    method, budget, switches = CASES[tag]
    expected, facts = golden.expected(tag), golden.facts()[f"{tag}.0"]
    duet.attach(model, method=method, budget=budget, **switches)
    positions = PositionsPerLayer(model, (0, 14, 21, 27))
    prompt = golden.prompt()
    with duet.record(model) as trace:
        out = model.generate(
            **prompt, max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    positions.remove()
    assert trace.entered == [facts["V"]]
    assert out.sequences[0, prompt["input_ids"].shape[1] :].tolist() == expected["gen_ids"].tolist()
    logits = torch.cat(out.logits)
    torch.testing.assert_close(logits, expected["gen_logits"], atol=golden.LOGITS, rtol=0)
    torch.testing.assert_close(logits[0], expected["logits_last"], atol=golden.LOGITS, rtol=0)
    # 7 of the 8 new tokens went through the layers
    assert [layer.get_seq_length() - 7 for layer in out.past_key_values.layers] == facts["kv_len_prefill"]
    for step, place in enumerate(facts["decode_positions_layer27"]):
        positions.check(27, 1 + step, [[axis] for axis in place])
    if "position_ids_stage1" in expected:
        positions.check(0, 0, expected["position_ids_stage1"])
    check_stage1(trace, expected)
    check_stage2(trace, expected, positions)


def check_stage1(trace, expected):
    if "scores" not in expected:
        return
    reduction = trace.reductions[0][0]
    dominant, anchors, members = expected["dominant"], expected["anchors"], expected["members"]
    assert reduction.kept[0, : len(dominant)].tolist() == dominant.tolist()
    assert reduction.kept[0, len(dominant) :].tolist() == anchors.tolist()
    assert reduction.assign[0, members].tolist() == (expected["assign"] + len(dominant)).tolist()
    order = reduction.kept[0].argsort()
    assert reduction.kept[0, order].tolist() == expected["kept_stage1"].tolist()
    torch.testing.assert_close(
        reduction.features[0, order], expected["visual_embeds_stage1"], atol=golden.FEATURES, rtol=0
    )


def check_stage2(trace, expected, positions):
    assert len(trace.stages) == sum(name.endswith(".kept_visual") for name in expected)
    for number, stage in enumerate(trace.stages):
        key = f"stage2_{number}."
        assert stage.kept[0].tolist() == expected[f"{key}kept_visual"].tolist()
        torch.testing.assert_close(stage.scores[0], expected[f"{key}scores"], atol=golden.FEATURES, rtol=0)
        positions.check(stage.boundary, 0, expected[f"{key}position_ids"])


def test_scores_and_text_logits(model):
    expected = golden.expected("duet_fixed_100_20")
    duet.attach(model, method="duet", budget=CASES["duet_fixed_100_20"][1])
    prompt = golden.prompt()
    body, vision = model.model, attached(model).compression.vision
    (states,) = vision.encode(body, prompt, frozenset({"received_attention"}))
    torch.testing.assert_close(states.scores["received_attention"][0], expected["scores"], atol=golden.FEATURES, rtol=0)
    del prompt["mm_token_type_ids"]  # found from the placeholders
    with torch.no_grad():
        logits = model(**prompt).logits[0]
    text = len(expected["logits_text"])
    torch.testing.assert_close(logits[-text:], expected["logits_text"], atol=golden.LOGITS, rtol=0)
