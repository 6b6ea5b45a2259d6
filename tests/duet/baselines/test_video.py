"""VidCom2, FastVID and HoliTom: the released codes' numbers, and what holds of any clip."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duet.baselines import fastvid, holitom, vidcom2
from tests.golden_clips import RATIOS, TOKENS, clip, make_clips, tensors

NEEDS = {
    vidcom2: ("features",),
    fastvid: ("features", "attention", "frame_features"),
    holitom: ("features", "attention"),
}
every_method = pytest.mark.parametrize("method", NEEDS, ids=lambda method: method.__name__.rsplit(".", 1)[1])
ratios = pytest.mark.parametrize("ratio", RATIOS)


def of(method, clips):
    return {name: clips[name] for name in NEEDS[method]}


def linear_map(method, keep, clips):
    """`[B, keep, F * N]`: what each token that stays is made of."""
    features = clips["features"]
    kept = method.select(keep=keep, **of(method, clips))
    batch, tokens = len(features), features.shape[1] * features.shape[2]
    if method is fastvid:
        chosen = fastvid.plan(features, clips["attention"], clips["frame_features"], keep)
        source, target, weight, own = fastvid.merge(features, chosen)
    else:
        source, target, weight, own = holitom.merge(holitom.plan(features, clips["attention"], keep))
    whole = torch.diag_embed(own)
    for row in range(batch):
        flows = target[row] >= 0
        whole[row].index_put_((target[row][flows], source[row][flows]), weight[row][flows], accumulate=True)
    return whole.gather(1, kept[..., None].expand(-1, -1, tokens))


@ratios
def test_vidcom2_keeps_what_the_released_code_keeps(ratio):
    wanted, given_ = tensors()[f"vidcom2.r{ratio}.kept"], clip("features")
    assert torch.equal(vidcom2.select(keep=len(wanted), **given_), wanted[None])
    assert vidcom2.released_keep(ratio=float(ratio), **given_).tolist() == [len(wanted)]
    per_frame = (vidcom2.select(keep=len(wanted), **given_)[0] // 100).bincount()
    assert torch.equal(per_frame, tensors()[f"vidcom2.r{ratio}.per_frame"])


@ratios
@pytest.mark.parametrize("noise_seed", [None, 0, 1])
def test_fastvid_keeps_what_the_released_code_keeps(ratio, noise_seed):
    columns = tensors()[f"fastvid.r{ratio}.kept_columns"] - 5
    wanted = columns[(columns >= 0) & (columns < 1200)]
    kept = fastvid.select(keep=len(wanted), noise_seed=noise_seed, **clip(*NEEDS[fastvid]))
    assert torch.equal(kept, wanted[None])
    released = fastvid.released_keep(ratio=float(ratio), tokens=100, **clip("frame_features"))
    assert released.tolist() == [len(wanted)]


def test_fastvid_segments_and_merged_tokens():
    clips = {name: x[None] for name, x in clip(*NEEDS[fastvid]).items()}
    first, last = fastvid.segments(clips["frame_features"])
    sizes = tensors()["fastvid.r0.1.segment_sizes"]
    assert torch.equal((last - first + 1)[0], sizes.repeat_interleave(sizes))
    tokens = linear_map(fastvid, 120, clips)[0] @ clips["features"].flatten(1, 2)[0]
    torch.testing.assert_close(tokens, tensors()["fastvid.r0.1.tokens"], atol=TOKENS, rtol=0)


@ratios
def test_holitom_windows_and_totals(ratio):
    first, still = holitom.windows(clip("features")["features"][None])
    wanted = tensors()[f"holitom.r{ratio}.segments"]
    assert first[0].tolist() == [start for start, end in wanted.tolist() for _ in range(start, end + 1)]
    assert torch.equal(still[0, wanted[:, 0]].sum(-1), tensors()[f"holitom.r{ratio}.static_counts"])
    released = holitom.released_keep(ratio=float(ratio), **clip("features"))
    total = tensors()[f"holitom.r{ratio}.tokens_per_segment"]
    assert released.tolist() == [total.sum().item()]
    kept = holitom.select(keep=int(released), **clip(*NEEDS[holitom]))[0]
    assert torch.equal((first[0][kept // 100]).bincount(minlength=12)[wanted[:, 0]], total)


def test_holitom_merged_tokens():
    clips = {name: x[None] for name, x in clip(*NEEDS[holitom]).items()}
    wanted = tensors()["holitom.r0.1.tokens"]
    tokens = linear_map(holitom, len(wanted), clips)[0] @ clips["features"].flatten(1, 2)[0]
    chosen = holitom.plan(clips["features"], clips["attention"], len(wanted))
    kept = holitom.select(keep=len(wanted), **of(holitom, clips))[0]
    # the released order: window by window, what stood still first
    released = torch.stack([chosen.first[0][kept // 100], (~chosen.centres.flatten()[kept]).long(), kept])
    order = sorted(range(len(kept)), key=lambda slot: released[:, slot].tolist())
    torch.testing.assert_close(tokens[order], wanted, atol=TOKENS, rtol=0)


@every_method
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 10**6), st.data())
def test_any_total_is_met_and_a_clip_alone_equals_the_clip_in_a_batch(method, frames, size, seed, data):
    clips = make_clips(3, frames, size, seed)
    keep = data.draw(st.integers(1, frames * size))
    kept = method.select(keep=keep, **of(method, clips))
    assert kept.shape == (3, keep)
    assert (kept.diff(dim=1) > 0).all() and kept.min() >= 0 and kept.max() < frames * size
    for row in range(3):
        alone = method.select(keep=keep, **{name: x[row] for name, x in of(method, clips).items()})
        assert torch.equal(alone[0], kept[row])


@pytest.mark.parametrize("method", [fastvid, holitom])
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 10**6), st.data())
def test_a_token_that_stays_is_a_mean_and_no_token_flows_into_one_that_goes(method, frames, size, seed, data):
    clips = make_clips(2, frames, size, seed)
    keep = data.draw(st.integers(1, frames * size))
    made_of = linear_map(method, keep, clips)
    torch.testing.assert_close(made_of.sum(-1), torch.ones(2, keep))
    assert (made_of >= 0).all()
    alone = {name: x[1:] for name, x in clips.items()}
    torch.testing.assert_close(linear_map(method, keep, alone)[0], made_of[1])


@every_method
def test_of_equal_tokens_the_first_stay(method):
    clips = {name: torch.ones_like(x) for name, x in make_clips(1, 3, 4).items()}
    kept = method.select(keep=5, **of(method, clips))[0]
    # the frames are alike, too: the remainder goes to the first ones
    per_frame = (kept // 4).bincount(minlength=3)
    assert (per_frame.diff() <= 0).all()
    assert kept.tolist() == [4 * frame + place for frame in range(3) for place in range(per_frame[frame])]


def test_vidcom2_gives_an_uncommon_frame_more():
    clips = make_clips(1, 6, 20, seed=3)
    clips["features"][:, 4] = torch.randn(20, 16, generator=torch.Generator().manual_seed(1))
    kept = vidcom2.select(keep=30, features=clips["features"])[0]
    assert (kept // 20).bincount().argmax() == 4
    assert vidcom2.select(keep=1, features=clips["features"])[0].item() // 20 == 4


def test_a_static_clip_is_one_window_of_holitom():
    frames = make_clips(1, 1, 9)["features"].expand(1, 5, 9, 16)
    first, still = holitom.windows(frames)
    assert first.tolist() == [[0] * 5] and still.all()
    chosen = holitom.plan(frames, torch.rand(1, 5, 9), 4)
    assert chosen.centres.sum() == 4 and chosen.centres[0, 0].sum() == 4
    # all still places are in the means: no token comes from a later frame
    assert not (chosen.dominant | chosen.contextual).any()


def test_holitom_merges_moving_tokens_where_it_is_asked_to():
    clips = make_clips(2, 4, 12, seed=5)
    plain = holitom.plan(clips["features"], clips["attention"], 16)
    half = holitom.plan(clips["features"], clips["attention"], 16, d=0.5)
    assert not plain.contextual.any() and half.contextual.any()
    stays = [(chosen.dominant | chosen.contextual).sum(-1) for chosen in (plain, half)]
    assert torch.equal(*stays)
    assert not (half.dominant & half.contextual).any()


def test_fastvid_spends_what_the_released_code_drops():
    clips = make_clips(1, 5, 10, seed=2)
    # one segment of 5 frames: 5 anchors for two anchor frames, of which an integer division leaves 4
    alike = torch.ones(1, 5, 3)
    given_ = {"features": clips["features"], "attention": clips["attention"], "frame_features": alike}
    assert fastvid.released_keep(ratio=0.3, frame_features=alike, tokens=10, c=1).tolist() == [14]
    released = fastvid.select(keep=14, c=1, **given_)[0]
    exact = fastvid.select(keep=15, c=1, **given_)[0]
    salient = fastvid.plan(*given_.values(), 15, rule=(1, fastvid.TAU, fastvid.D, fastvid.P)).salient
    assert len(exact) == 15 and salient.sum() == 11 and len(set(released.tolist()) & set(exact.tolist())) >= 12


@every_method
def test_half_precision_is_ranked_in_float32(method):
    clips = make_clips(1, 4, 9, seed=7)
    half = {name: x.half() for name, x in clips.items()}
    whole = {name: x.float() for name, x in half.items()}
    assert torch.equal(method.select(keep=11, **of(method, half)), method.select(keep=11, **of(method, whole)))
