"""LLaVA-1.5 against the numbers of the original code (see tests/golden_llava.py for what they are)."""

from __future__ import annotations

import pytest
import torch

import duet
from duet.budget import Budget
from tests import golden_llava as golden

COUNTS = {"192": (300, 7), "128": (170, 35), "64": (72, 30)}
PYRAMID = Budget(layers=(8, 16, 24), ratios=(0.5, 0.25, 0.125))


def duet_budget(name: str, ratios=(0.5, 0.0)) -> Budget:
    dominant, contextual = COUNTS[name]
    return Budget(dominant=dominant, contextual=contextual, layers=(16, 24), ratios=ratios)


def salient(file: str = "inputs"):
    data = golden.tensors(file)
    return golden.salient_finder({len(data[f"input_ids_{i}"]) - 1: data[f"salient_{i}"].tolist() for i in (0, 1)})


def last_only():
    data = golden.tensors("inputs")
    return golden.salient_finder({len(data[f"input_ids_{i}"]) - 1: [len(data[f"input_ids_{i}"]) - 1] for i in (0, 1)})


CASES = [
    ("golden_llm_pdrop", "pdrop_last", "pyramiddrop", PYRAMID, {}),
    ("golden_llm_duet", "pdrop_all", "pyramiddrop_all", PYRAMID, {}),
    ("golden_llm_duet", "duet_all_128_r0.5_0.25", "duet", duet_budget("128", (0.5, 0.25)), {}),
]
for name in COUNTS:
    CASES += [
        ("golden_llm_duet", f"duet_all_{name}", "duet_c_all", duet_budget(name), {}),
        ("golden_llm_duet", f"duet_salient_{name}", "duet_c_s", duet_budget(name), {"salient": salient}),
        ("golden_llm_duet", f"duet_salientlast_{name}", "duet_c_s", duet_budget(name), {"salient": last_only}),
        ("golden_llm_duetlast", f"duet_last_{name}", "duet_c", duet_budget(name), {}),
    ]


@pytest.fixture(scope="module")
def model():
    return golden.tiny_llava()


def attach(model, method, budget, extra):
    duet.attach(model, method=method, budget=budget, **{key: make() for key, make in extra.items()})


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(("file", "tag", "method", "budget", "extra"), CASES, ids=[case[1] for case in CASES])
def test_inference(model, file, tag, method, budget, extra, index):
    expected, facts = golden.tensors(file), golden.facts(file)[f"{tag}.{index}"]
    attach(model, method, budget, extra)
    positions = positions_per_layer(model)
    with duet.record(model) as trace:
        out = model.generate(
            **golden.prompt(index), max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    key = f"{tag}.{index}."
    for number, stage in enumerate(trace.stages):
        assert torch.equal(stage.kept[0], expected[f"{key}kept_stage{number}"].long())
        torch.testing.assert_close(stage.scores[0], expected[f"{key}scores_stage{number}"], atol=1e-5, rtol=0)
    assert len(trace.stages) == len(facts["kept"])
    length = golden.prompt(index)["input_ids"].shape[1]
    assert out.sequences[0, length:].tolist() == expected[f"{key}gen_ids"].tolist()
    logits = torch.cat(out.logits)
    torch.testing.assert_close(logits, expected[f"{key}gen_logits"], atol=golden.LOGITS, rtol=0)
    torch.testing.assert_close(logits[0], expected[f"{key}logits_last"], atol=golden.LOGITS, rtol=0)
    # 7 of the 8 new tokens went through the layers
    cached = [layer.get_seq_length() - 7 for layer in out.past_key_values.layers]
    assert cached == facts["kv_len_prefill"]
    assert positions.first_step() == [position[0][0] for position in facts["decode_step1_position_per_layer"]]
    positions.remove()


class positions_per_layer:
    """Watches the rotary angle of each layer's first decoding step."""

    def __init__(self, model):
        self.lm = model.model.language_model
        self.seen: list[list[int]] = []
        self.handles = [layer.register_forward_pre_hook(self.note, with_kwargs=True) for layer in self.lm.layers]

    def note(self, layer, args, kwargs):
        if args[0].shape[1] == 1:
            cos, sin = kwargs["position_embeddings"]
            angle = torch.atan2(sin[0, 0], cos[0, 0])
            self.seen.append(angle)

    def first_step(self) -> list[int]:
        table = torch.arange(1024)[None]
        cos, sin = self.lm.rotary_emb(torch.zeros(1), position_ids=table)
        angles = torch.atan2(sin[0], cos[0])
        return [int((angles - angle).abs().sum(-1).argmin()) for angle in self.seen[: len(self.lm.layers)]]

    def remove(self):
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize(
    ("file", "tag", "method", "dominant", "contextual"),
    [
        ("golden_stage1_vz", "vz_d54_c10", "visionzip", 54, 10),
        ("golden_stage1_duet", "duet_d300_c7", "visionzip_c", 300, 7),
        ("golden_stage1_duet", "duet_d170_c35", "visionzip_c", 170, 35),
        ("golden_stage1_duet", "duet_d72_c30", "visionzip_c", 72, 30),
    ],
)
def test_stage1(model, file, tag, method, dominant, contextual):
    expected = golden.tensors(file)
    tag = next(key.split(".")[0] for key in expected if key.startswith(tag))
    duet.attach(model, method=method, budget=Budget(dominant=dominant, contextual=contextual))
    for picture in (0, 1):
        with duet.record(model) as trace, torch.no_grad():
            model(**golden.prompt(picture))
        reduction = trace.reductions[0][0]
        patches = reduction.kept[0, 1:dominant]
        assert reduction.kept[0, 0] == -1
        assert patches.tolist() == expected[f"{tag}.dominant_patches"][picture].tolist()
        anchors = expected[f"{tag}.anchor_patches_{picture}"].long()
        members = expected[f"{tag}.merged_patches_{picture}"].long()
        assert reduction.kept[0, dominant:].tolist() == anchors.tolist()
        assert reduction.assign[0, members].tolist() == (expected[f"{tag}.assign_{picture}"].long() + dominant).tolist()
        gone = torch.ones(golden.PATCHES, dtype=torch.bool).index_fill(0, torch.cat([patches, anchors, members]), False)
        assert (reduction.assign[0, gone] == -1).all()
        torch.testing.assert_close(
            reduction.features[0], expected[f"{tag}.features"][picture], atol=golden.FEATURES, rtol=0
        )
        if picture == 0:
            projected = model.model.multi_modal_projector(reduction.features)[0]
            torch.testing.assert_close(projected, expected[f"{tag}.projected_0"], atol=golden.FEATURES, rtol=0)


def train_salient():
    return golden.salient_finder({25: [9, 11, 14], 48: [23, 26, 38, 40]})


RENAMED = {
    "model.embed_tokens": "model.language_model.embed_tokens",
    "model.layers": "model.language_model.layers",
    "mm_projector.0": "multi_modal_projector.linear_1",
}
TRAINING = [
    ("golden_llm_pdrop", "pdrop_last", "pyramiddrop", PYRAMID, {}),
    ("golden_llm_duetlast", "duet_last_128", "duet_c", duet_budget("128"), {}),
    ("golden_llm_duet", "duet_all_128", "duet_c_all", duet_budget("128"), {}),
    ("golden_llm_duet", "duet_salient_128", "duet_c_s", duet_budget("128"), {"salient": train_salient}),
]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(("file", "tag", "method", "budget", "extra"), TRAINING, ids=[case[1] for case in TRAINING])
def test_training(file, tag, method, budget, extra, index, checkpointing):
    model = golden.tiny_llava().train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    expected = golden.tensors(file)
    attach(model, method, budget, extra)
    with duet.record(model) as trace:
        out = model(**golden.conversation(index))
    key = f"{tag}.train.single{index}."
    for number, stage in enumerate(trace.stages):
        assert torch.equal(stage.kept[0], expected[f"{key}sample0.kept_stage{number}"].long())
    torch.testing.assert_close(out.loss[None], expected[f"{key}loss"], atol=golden.LOSS, rtol=0)
    torch.testing.assert_close(out.logits[0], expected[f"{key}logits_at_targets"], atol=golden.LOGITS, rtol=0)
    out.loss.backward()
    parameters = dict(model.named_parameters())
    for name, norm in golden.facts(file)[f"{tag}.train.single{index}"]["grad_norms"].items():
        for original, here in RENAMED.items():
            name = name.replace(original, here)
        assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=1e-4), name
