"""The paper's baselines against numbers of their official code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from duet.baselines import dart, fastv, fitprune, hired, prumerge, prumerge_plus, sparsevlm
from duet.budget import Budget
from duet.budget.schedules import FITPRUNE, SPARSEVLM, Schedule
from duet.ops.raters import raters

FOLDER = Path(__file__).parents[2] / "golden" / "baselines"
SYSTEM, N = 35, 576


def load(name: str) -> dict[str, Tensor]:
    return load_file(FOLDER / f"{name}.safetensors")


@pytest.mark.parametrize("keep", [166, 98, 30, 288])
def test_fastv(keep):
    golden = load("fastv")
    kept = fastv.select(keep=keep, attention=golden["attn_prev_layer_last_query_row"][None, :, SYSTEM : SYSTEM + N])
    columns = golden[f"k{keep}.keep_index"]
    assert kept[0].equal(columns[(columns >= SYSTEM) & (columns < SYSTEM + N)] - SYSTEM)


@pytest.mark.parametrize(("nominal", "keep"), [(192, 188), (128, 132), (64, 68)])
def test_dart(nominal, keep):
    golden = load("dart_lightcompress")
    kept = dart.select(
        keep=keep, keys=golden["keys"], hidden=golden["normed_hidden"], image_start=SYSTEM, image_tokens=N
    )
    assert (kept[0] + SYSTEM).equal(golden[f"K{nominal}.keep_index"])


def test_raters_of_sparsevlm():
    golden = load("sparsevlm")
    embeds = golden["embeds"]
    chosen = raters(visual=embeds[:, SYSTEM : SYSTEM + N], text=embeds[:, SYSTEM + N :])
    assert chosen[0].nonzero()[:, 0].equal(golden["rater_index"])


@pytest.mark.parametrize(
    ("layer", "before"), [(2, "embeds"), (6, "v1_64.layer2.hidden_out"), (15, "v1_64.layer6.hidden_out")]
)
def test_sparsevlm_1_5(layer, before):
    """Scores, kept tokens, how many are merged, and the merged tokens; layers are the identity in these numbers."""
    golden = load("sparsevlm")
    name = f"v1_64.layer{layer}"
    attention = golden[f"{name}.attn_text_rows"][None][:, :, golden["rater_index"]]
    tokens, total = attention.shape[-1], golden[f"{name}.n_visual_out"]
    expected = golden[f"{name}.keep_visual_index"]
    scores = sparsevlm.rate(attention)
    torch.testing.assert_close(scores[0], golden[f"{name}.score"], atol=1e-7, rtol=0)
    stays, made = sparsevlm.split_counts(total[None], torch.tensor([tokens]), most=tokens)
    assert (int(stays), int(made)) == (len(expected), int(total) - len(expected))
    assert sparsevlm.select(keep=int(stays), attention=attention)[0].equal(expected)
    merged = sparsevlm.recycle(hidden=golden[before][:, SYSTEM : SYSTEM + tokens], scores=scores, keep=int(stays))
    out = golden[f"{name}.hidden_out"][:, SYSTEM + int(stays) : SYSTEM + int(total)]
    torch.testing.assert_close(merged, out, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("layer", "before"), [(6, 2), (15, 6)])
def test_sparsevlm_2(layer, before):
    """Gravity from the kept position ids, 14 of 16 heads."""
    golden = load("sparsevlm")
    name = f"v2_64.layer{layer}"
    attention = golden[f"{name}.attn_text_rows"][None][:, :, golden["rater_index"]]
    tokens = attention.shape[-1]
    places = golden[f"v2_64.layer{before}.position_ids"]
    angles = places[..., None] * 10000.0 ** (-torch.arange(0, 128, 2) / 128)
    cos, sin = (torch.cat([table, table], -1) for table in (angles.cos(), angles.sin()))
    visual, text = slice(SYSTEM, SYSTEM + tokens), SYSTEM + tokens + golden["rater_index"]
    weight = sparsevlm.gravity((cos[:, text], sin[:, text]), (cos[:, visual], sin[:, visual]))
    scores = sparsevlm.rate(attention, gravity=weight, heads=sparsevlm.PRIORITY_HEADS)
    torch.testing.assert_close(scores[0], golden[f"{name}.score"], atol=1e-6, rtol=1e-4)
    expected = golden[f"{name}.keep_visual_index"]
    kept = sparsevlm.select(keep=len(expected), attention=attention, gravity=weight, heads=sparsevlm.PRIORITY_HEADS)
    assert kept[0].equal(expected)


def test_clusters_of_sparsevlm():
    golden = load("sparsevlm")
    x = golden["cluster.x"]
    inside = torch.ones(x.shape[:2], dtype=torch.bool)
    _, target, weight = sparsevlm.merge_at_peaks(x, inside, torch.tensor([5]), 5)
    merged = torch.zeros(1, 5, x.shape[2]).index_add(1, target[0], x * weight[..., None])
    torch.testing.assert_close(merged, golden["cluster.merged_k5"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("percent", "layer"), [(60, 2), (70, 0), (80, 0), (90, 0), (90, 1)])
def test_fitprune(percent, layer):
    golden = load("fitprune")
    gone = golden[f"r{percent}_l{layer}.deleted_visual_index"]
    # one head, one row: its sum is the statistic
    kept = fitprune.select(
        keep=N - len(gone),
        self_attention=golden["from_visual"][:, None, None],
        cross_attention=golden["from_text"][:, None, None],
    )
    assert {*range(N)} - set(kept[0].tolist()) == set(gone.tolist())


def test_presets_of_fitprune():
    """Budgets of the schedule hold the released counts: the last row deletes most."""
    golden = load("fitprune")
    presets = dict(zip(golden["preset.ratio"].tolist(), golden["preset.delete_per_layer"], strict=True))
    for number, percent in enumerate(sorted(presets, reverse=True), 1):
        left = N - presets[percent].cumsum(0)[:-1]
        assert counts_at(FITPRUNE, number / (len(FITPRUNE.table) - 1)) == left.tolist()


def test_lists_of_sparsevlm():
    released = {0.25: (66 + 16, 30 + 2, 17 + 1), 0.5: (303 + 9, 110 + 7, 36 + 3), 0.75: (300 + 9, 200 + 4, 110 + 3)}
    for x, expected in released.items():
        # the first list of "128" keeps more than that of "192"
        assert counts_at(SPARSEVLM, x) == [*expected]


def counts_at(schedule: Schedule, x: float) -> list[int]:
    ratios = schedule.ratios_at(x, 32)
    return list(Budget(layers=schedule.places(32), ratios=ratios).keep_counts(N))


@pytest.mark.parametrize("tolerance", ["0.05", "0.2", "0.5"])
def test_fit_of_fitprune(tolerance):
    golden = load("fitprune")
    gone = fitprune.deletable(
        from_visual=golden["from_visual"], from_text=golden["from_text"], tolerance=float(tolerance)
    )
    assert gone[0].nonzero()[:, 0].equal(golden[f"fit_a{tolerance}.deleted_visual_index"].sort().values)


@pytest.mark.parametrize("keep", [192, 128, 64, 115])
def test_hired_whole_picture(keep):
    golden = load("hired")
    kept = hired.select(keep=keep, cls_attention=golden["llava15.cls_rows"].sum(1))
    assert kept[0].equal(golden[f"llava15.keep_{keep}"])


@pytest.mark.parametrize(
    ("tag", "rate"), [("r640", 640 / 2880), ("r320", 320 / 2880), ("r160", 160 / 2880), ("r20", 0.2)]
)
@pytest.mark.parametrize(("name", "partition"), [("next_1x2", (1, 2)), ("next_2x2", (2, 2))])
def test_hired_crops(name, partition, tag, rate):
    golden = load("hired")
    crops = 1 + partition[0] * partition[1]
    counts = hired.tile_budgets(
        keep=int(crops * N * rate),
        cls_attention_first=golden[f"{name}.cls_rows_layer0"].sum(1)[:1],
        partition=partition,
    )
    assert counts[0].equal(golden[f"{name}.{tag}.counts"])
    chosen = hired.choose(
        cls_attention=golden[f"{name}.cls_rows_layer22"].sum(1).flatten()[None],
        unit=torch.arange(crops).repeat_interleave(N),
        counts=counts,
    )
    assert chosen[0].equal(golden[f"{name}.{tag}.mask"].flatten())


@pytest.mark.parametrize("name", ["pm_r63", "pm_r127", "pm_r191", "pm_adaptive"])
def test_prumerge(name):
    golden = load("prumerge")
    attention, index = golden["cls_attn"], golden[f"{name}.index"]
    assert prumerge.select(keep=index.shape[1], cls_attention=attention).equal(index.sort().values)
    if name == "pm_adaptive":
        assert prumerge.adaptive_count(attention).tolist() == [index.shape[1]]
    check_merge(golden, name)


def test_prumerge_plus():
    golden = load("prumerge")
    attention = golden["cls_attn"]
    adaptive = prumerge_plus.adaptive_select(attention)[0].nonzero()[:, 0]
    assert adaptive.equal(golden["pmplus_adaptive.index"][0].sort().values)
    fixed = golden["pmplus_train_r8.index"]
    assert prumerge_plus.ordered(keep=144, cls_attention=attention, duplicates=True).equal(fixed)
    assert prumerge_plus.select(keep=144, cls_attention=attention, duplicates=True).equal(fixed.sort().values)
    kept = prumerge_plus.select(keep=144, cls_attention=attention)[0].tolist()
    assert set(fixed[0].tolist()) < set(kept)
    check_merge(golden, "pmplus_adaptive")
    check_merge(golden, "pmplus_train_r8")


def check_merge(golden: dict[str, Tensor], name: str) -> None:
    """Neighbours and the extra token, also where a patch was kept twice."""
    merged = prumerge.merge(
        features=golden["features_with_cls"][:, 1:],
        keys=golden["k"][:, 1:],
        cls_attention=golden["cls_attn"],
        kept=golden[f"{name}.index"],
    )
    torch.testing.assert_close(merged, golden[f"{name}.out"], atol=1e-5, rtol=0)
