"""Video-LLaVA against the numbers of the original code (see tests/golden_video.py for what they are).

The `*_asis` numbers are those of released bugs (only the first frame is ranked, by its own last token, and decoding
crashes) and are not offered.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from tests import golden_video as golden

COUNTS = {"960": (160, 32), "136": (20, 7)}
PYRAMID = Budget(layers=(8, 16, 24), ratios=(0.5, 0.25, 0.125))


def budget(name: str) -> Budget:
    dominant, contextual = COUNTS[name]
    return Budget(dominant=dominant, contextual=contextual, layers=(16, 24), ratios=(0.5, 0.0))


CASES = [
    ("pdrop_intended_last", "pyramiddrop", PYRAMID),
    ("pdrop_intended_all", "pyramiddrop_all", PYRAMID),
    *((f"duet_{name}_intended_last", "duet_c", budget(name)) for name in COUNTS),
    *((f"duet_{name}_intended_all", "duet_c_all", budget(name)) for name in COUNTS),
]


@pytest.fixture(scope="module")
def model() -> Any:
    return golden.tiny_video_llava()


def generate(model: Any) -> Any:
    return model.generate(
        **golden.prompt(), max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True
    )


@pytest.mark.parametrize("method", [None, "none"])
def test_all_tokens(method, model):
    expected = golden.tensors()
    if method:
        duet.attach(model, method)
    inputs = golden.prompt()
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    text = expected["baseline.0.logits_text"]
    torch.testing.assert_close(logits[-len(text) :], text, atol=golden.LOGITS, rtol=0)
    out = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert out[0, inputs["input_ids"].shape[1] :].tolist() == expected["baseline.0.gen_ids"].tolist()
    if method:
        duet.detach(model)


@pytest.mark.parametrize(("tag", "method", "numbers"), CASES, ids=[case[0] for case in CASES])
def test_inference(model, tag, method, numbers):
    expected, facts = golden.tensors(), golden.facts()[f"{tag}.0"]
    duet.attach(model, method, numbers)
    with duet.record(model) as trace:
        out = generate(model)
    assert trace.entered == [facts["V"]]
    assert len(trace.stages) == len(facts["stages"])
    for number, stage in enumerate(trace.stages):
        assert stage.kept[0].tolist() == expected[f"{tag}.0.stage2_{number}.kept_visual"].tolist()
        torch.testing.assert_close(stage.scores[0], expected[f"{tag}.0.stage2_{number}.scores"], atol=1e-5, rtol=0)
    logits = torch.cat(out.logits)
    torch.testing.assert_close(logits, expected[f"{tag}.0.gen_logits"], atol=golden.LOGITS, rtol=0)
    torch.testing.assert_close(logits[0], expected[f"{tag}.0.logits_last"], atol=golden.LOGITS, rtol=0)
    assert out.sequences[0, golden.prompt()["input_ids"].shape[1] :].tolist() == expected[f"{tag}.0.gen_ids"].tolist()
    cached = [layer.get_seq_length() - 7 for layer in out.past_key_values.layers]
    assert cached == facts["kv_len_prefill"]


@pytest.mark.parametrize("name", COUNTS)
def test_stage1(model, name):
    expected, tag = golden.tensors(), f"stage1_video_{name}"
    dominant, _ = COUNTS[name]
    duet.attach(model, "visionzip_c", budget(name).only(1))
    with duet.record(model) as trace, torch.no_grad():
        model(**golden.prompt())
    frames = trace.reductions[0]
    assert len(frames) == golden.FRAMES
    for number, frame in enumerate(frames):
        assert frame.kept[0, 0] == -1
        assert frame.kept[0, 1:dominant].tolist() == expected[f"{tag}.dominant_patches"][number].tolist()
        assert frame.kept[0, dominant:].tolist() == expected[f"{tag}.anchors"][number].tolist()
        torch.testing.assert_close(frame.features[0], expected[f"{tag}.features"][number], atol=golden.FEATURES, rtol=0)


def test_scores_and_features_of_the_tower(model):
    from duet.videollava.adapter import VideoLlavaVision

    with torch.no_grad():
        states = VideoLlavaVision().encode(model.model, golden.prompt(), frozenset({"cls_attention"}))
    scores = golden.tensors()["stage1_video_960.cls_attention_sum"]
    torch.testing.assert_close(states[0].scores["cls_attention"], scores, atol=1e-5, rtol=0)
    frame = torch.cat([states[0].cls[:1], states[0].features[0]])
    torch.testing.assert_close(frame, golden.tensors()["baseline.video_features_frame0"], atol=1e-5, rtol=0)
