"""Random tiny Video-LLaVA models: pictures and videos mixed, in batches, decoding, training, and stock again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import duet
from benchmarks.measure import peak_bytes
from duet.backbones import clip
from duet.budget import Budget
from duet.engine.attachment import is_attached
from tests.tiny_parts import check_rows_alone, recomputed
from tests.tiny_video_llava import (
    FRAMES,
    IMAGE,
    PATCHES,
    PICTURES,
    SIZE,
    VIDEO,
    Row,
    collate,
    make_row,
    prompt_of,
    tiny_video_llava,
)

LOGITS = {"atol": 1e-4, "rtol": 0}
#: Answers are words: a generated placeholder could not be recomputed.
GREEDY = {"max_new_tokens": 5, "do_sample": False, "suppress_tokens": [IMAGE, VIDEO]}
#: 9 or 10 tokens -> 6 of each picture and frame, half of them after two layers, a quarter after four.
BUDGET = Budget(dominant=4, contextual=2, cluster_width=2, layers=(2, 4), ratios=(0.5, 0.25))
METHODS = {
    "none": (None, {}),
    "visionzip": (BUDGET.only(1), {}),
    "visionzip_c": (BUDGET.only(1), {"contextual_merge": "paper"}),
    "pyramiddrop": (BUDGET.only(2), {}),
    "duet": (BUDGET, {}),
    "duet_c": (BUDGET, {"positions": "keep"}),
    "duet_c_all": (Budget(dominant=4, contextual=2, layers=(2, 4), ratios=(0.5, 0.0)), {"score": "column_mean"}),
}
NAMES = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_video_llava()


@pytest.fixture(autouse=True)
def stock_again(model: Any):
    yield
    if is_attached(model):
        duet.detach(model)
    model.eval()
    model.zero_grad(set_to_none=True)


def attach(model: Any, name: str) -> Any:
    budget, switches = METHODS[name]
    return duet.attach(model, name, budget, **switches)


def mixed_rows() -> list[Row]:
    """A video; text; a picture, a video and a picture; two pictures; two videos in front of a picture."""
    wanted = [("v", 6), ("", 11), ("pvp", 3), ("pp", 4), ("vvp", 2)]
    return [prompt_of(make_row(kinds, text, seed)) for seed, (kinds, text) in enumerate(wanted, 1)]


@pytest.mark.parametrize("side", ["left", "right"])
@NAMES
@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(model, name, side):
    attach(model, name)
    check_rows_alone(model, mixed_rows(), collate, side, LOGITS)


@torch.no_grad()
def test_frames_and_pictures_are_units_in_prompt_order(model):
    attach(model, "duet")
    with duet.record(model) as trace:
        model(**collate(mixed_rows()))
    assert [len(row) for row in trace.reductions] == [FRAMES, 0, FRAMES + 2, 2, 2 * FRAMES + 1]
    assert trace.entered == [6 * len(row) for row in trace.reductions]
    # the first and the last of "pvp" are the row's pictures
    row = mixed_rows()[2]
    with duet.record(model) as alone:
        model(**collate([replace(row, ids=prompt_of(make_row("pp", seed=9)).ids, videos=row.videos[:0])]))
    for found, wanted in zip((trace.reductions[2][0], trace.reductions[2][-1]), alone.reductions[0], strict=True):
        torch.testing.assert_close(found.features, wanted.features)


@NAMES
def test_greedy_tokens_of_a_row_do_not_depend_on_its_neighbours(model, name):
    rows = mixed_rows()
    attach(model, name)
    together = model.generate(**collate(rows), **GREEDY)[:, -5:]
    alone = [model.generate(**collate([row]), **GREEDY)[0, -5:] for row in rows]
    assert together.tolist() == torch.stack(alone).tolist()


@NAMES
@torch.no_grad()
def test_greedy_decoding_equals_recomputing(model, name):
    attach(model, name)
    for row in mixed_rows():
        out = model.generate(**collate([row]), **GREEDY, output_logits=True, return_dict_in_generate=True)
        new = out.sequences[0, len(row.ids) :]
        torch.testing.assert_close(torch.cat(out.logits), recomputed(model, row, new, collate), **LOGITS)


@pytest.mark.parametrize("name", ["none", "visionzip", "duet", "duet_c"])
def test_beams_and_samples_repeat_pictures_and_videos_with_their_rows(model, name):
    rows = mixed_rows()
    attach(model, name)
    beams = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False}
    together = model.generate(**collate(rows), **beams)[:, -4:]
    alone = [model.generate(**collate([row]), **beams)[0, -4:] for row in rows]
    assert together.tolist() == torch.stack(alone).tolist()
    several = model.generate(**collate(rows), max_new_tokens=3, num_return_sequences=2, do_sample=True, top_k=1)
    assert several[::2].tolist() == several[1::2].tolist()


@torch.no_grad()
def test_method_none_gives_stock_logits_bit_for_bit(model):
    batch = collate([prompt_of(make_row("pv", seed=1)), prompt_of(make_row("vp", seed=2))])
    wanted, tokens = model(**batch).logits, model.generate(**batch, **GREEDY)
    attach(model, "none")
    assert torch.equal(model(**batch).logits, wanted)
    assert torch.equal(model.generate(**batch, **GREEDY), tokens)


@torch.no_grad()
def test_cls_of_pictures_under_the_full_strategy():
    model = tiny_video_llava("full")
    batch = collate([prompt_of(make_row("pv", image_tokens=PATCHES + 1))])
    wanted = model(**batch).logits
    duet.attach(model, "none")
    assert torch.equal(model(**batch).logits, wanted)
    duet.attach(model, "pyramiddrop", BUDGET.only(2))
    with duet.record(model) as trace:
        model(**batch)
    assert trace.entered == [(1 + FRAMES) * (PATCHES + 1)]


@pytest.mark.parametrize("name", ["pyramiddrop", "duet", "duet_c"])
@torch.no_grad()
def test_detached_the_model_is_stock_bit_for_bit(model, name):
    batch, text = collate(mixed_rows()), collate(mixed_rows()[1:2])
    wanted, words, tokens = model(**batch).logits, model(**text).logits, model.generate(**batch, **GREEDY)
    attach(model, name)
    assert not torch.equal(model(**batch).logits, wanted)
    assert torch.equal(model(**text).logits, words)
    duet.detach(model)
    assert torch.equal(model(**batch).logits, wanted)
    assert torch.equal(model.generate(**batch, **GREEDY), tokens)


@torch.no_grad()
def test_the_older_name_of_pictures(model):
    attach(model, "duet")
    batch = collate([make_row("pv", seed=3)], labels=True)
    wanted = model(**batch)
    old = {**batch, "pixel_values_images": batch[PICTURES]}
    if PICTURES != "pixel_values_images":
        del old[PICTURES]
    found = model(**old)
    assert torch.equal(found.logits, wanted.logits) and torch.equal(found.loss, wanted.loss)


@pytest.mark.parametrize("kinds", ["v", "p", "pv"])
def test_gradients_reach_towers_projector_and_decoder(model, kinds):
    attach(model, "duet").train()
    model(**collate([make_row(kinds), make_row("")], labels=True)).loss.backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None}
    idle = {"v": "image_tower", "p": "video_tower", "pv": "no tower"}[kinds]
    unused = ("encoder.layers.2", "post_layernorm", idle)
    assert without == {name for name, _ in model.named_parameters() if any(part in name for part in unused)}


def test_loss_of_a_batch_is_the_mean_over_its_rows(model):
    rows = [make_row(kinds, seed=seed) for seed, kinds in enumerate(("v", "", "pv"))]
    attach(model, "duet").train()
    alone = torch.stack([model(**collate([row], labels=True)).loss for row in rows]).mean()
    for side in ("left", "right"):
        torch.testing.assert_close(model(**collate(rows, side, labels=True)).loss, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 8, 16])
@pytest.mark.parametrize("name", ["none", "duet", "visionzip_c", "duet_c_all"])
@torch.no_grad()
def test_long_videos_run_in_chunks_and_keep_the_same(model, name, frames, monkeypatch):
    batch = collate([prompt_of(make_row("vp", frames=frames))])
    attach(model, name)
    with duet.record(model) as trace:
        wanted = model(**batch).logits
    seen: list[int] = []
    handle = model.model.video_tower.encoder.layers[0].register_forward_pre_hook(
        lambda _, args: seen.append(len(args[0]))
    )
    monkeypatch.setattr(clip, "CHUNK", 3)
    found = model(**batch).logits
    handle.remove()
    assert max(seen) <= 3 and sum(seen) == frames
    torch.testing.assert_close(found, wanted, **LOGITS)
    assert trace.entered == [6 * (frames + 1) if METHODS[name][0] else frames * (PATCHES + 1) + PATCHES]


def test_the_tower_takes_no_more_memory_for_a_longer_video(model, monkeypatch):
    """Beside what it returns: features, CLS, keys and scores of every frame."""
    monkeypatch.setattr(clip, "CHUNK", 4)
    needs = frozenset({"cls_attention", "keys"})

    @torch.no_grad()
    def peak(frames: int) -> int:
        pixels = torch.randn(frames, 3, SIZE, SIZE)
        return peak_bytes(pixels.device, lambda: clip.encode_in_chunks(model.model.video_tower, pixels, -2, needs))

    states = clip.encode(model.model.video_tower, torch.randn(1, 3, SIZE, SIZE), -2, needs)
    assert states.keys is not None and states.cls is not None
    held = states.features.nbytes + states.cls.nbytes + states.keys.nbytes + states.scores["cls_attention"].nbytes
    # a frame is held once in its chunk and once in the whole
    assert peak(64) - peak(16) <= 48 * 2.2 * held
    monkeypatch.setattr(clip, "CHUNK", 64)
    assert peak(64) - peak(16) > 48 * 4 * held


def test_what_does_not_fit_is_refused(model):
    attach(model, "duet")
    batch = collate([prompt_of(make_row("pv"))])
    with pytest.raises(ValueError, match="video placeholders, but no videos were passed"):
        model(**{key: value for key, value in batch.items() if key != "pixel_values_videos"})
    with pytest.raises(ValueError, match="image placeholders, but no images were passed"):
        model(**{key: value for key, value in batch.items() if key != PICTURES})
    with pytest.raises(ValueError, match=r"got 1 video\(s\) of 20 tokens"):
        model(**{**batch, "pixel_values_videos": batch["pixel_values_videos"][:, :2]})
    with pytest.raises(ValueError, match=r"expected \[videos, frames, 3, H, W\]"):
        model(**{**batch, "pixel_values_videos": batch["pixel_values_videos"][0]})
    with pytest.raises(ValueError, match=r"got 2 picture\(s\)"):
        model(**{**batch, PICTURES: batch[PICTURES].repeat(2, 1, 1, 1)})
