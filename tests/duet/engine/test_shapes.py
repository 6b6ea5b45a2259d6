"""Late entry, frozen and away layers, absolute counts on every family: decoding, batches, beams, checkpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from duet.engine.attachment import attached
from tests.duet.engine.test_seen import check
from tests.duet.qwen2_5_vl.plain import recompute
from tests.families import FAMILIES, Family
from tests.family_checks import check_beams, check_checkpointing, check_decoding, decode
from tests.tiny_parts import check_rows_alone

LOGITS = {"atol": 3e-4, "rtol": 0}
BOTH = pytest.mark.parametrize("positions", ["keep", "renumber"])
#: Changes to a family's budget of both stages, on 6 layers.
SHAPES: dict[str, dict[str, Any]] = {
    "late": {"entry": 1},
    "frozen": {"frozen": 3},
    "late, frozen, counts": {"entry": 0.34, "layers": (3, 4), "ratios": (), "keep": (3, 1), "frozen": (2, 4, 5)},
    "away": {"layers": (1, 4), "away": (2, 3)},
    "late, away twice, frozen": {"entry": 1, "layers": (5,), "ratios": (0.5,), "away": (2, 4), "frozen": (3, 5)},
    "late, then gone": {"entry": 1, "layers": (4,), "ratios": (0.0,), "frozen": (1, 3)},
}
SHAPED = pytest.mark.parametrize("shape", SHAPES)


def compressed(family: Family, shape: str, positions: str = "keep", method: str = "duet") -> Any:
    return duet.attach(family.build(), method, replace(family.budget, **SHAPES[shape]), positions=positions)


@SHAPED
@BOTH
@torch.no_grad()
def test_a_decoded_batch_equals_each_row_recomputed_whole(family, shape, positions):
    model = compressed(family, shape, positions)
    check_decoding(model, family, LOGITS)


@pytest.mark.parametrize("side", ["left", "right"])
@SHAPED
@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(family, shape, side):
    check_rows_alone(compressed(family, shape), family.prompts, family.collate, side, LOGITS)


@SHAPED
@torch.no_grad()
def test_the_caches_hold_what_enters_each_layer(family, shape):
    model = compressed(family, shape)
    budget = attached(model).compression.budget
    with duet.record(model) as trace:
        cache = model(**family.collate(family.prompts)).past_key_values
    boundaries = budget.boundaries(6)
    assert list(trace.lengths) == list(boundaries)
    widths = [max(trace.lengths[max(b for b in boundaries if b <= layer)]) for layer in range(6)]
    assert [layer.get_seq_length() for layer in cache.layers] == widths
    assert cache.get_seq_length() == max(len(row.ids) for row in family.prompts)
    for start, end in budget.absences(6):
        vision, body = attached(model).compression.vision, attached(model).body
        shown = [int(vision.placeholders(body, row.ids[None]).sum()) for row in family.prompts]
        assert trace.lengths[start] == [len(row.ids) - count for row, count in zip(family.prompts, shown, strict=True)]
        assert widths[start] < widths[end]
    for row, entered in enumerate(trace.entered):
        left = dict(zip(budget.layers_for(6), budget.keep_counts(entered, len(trace.reductions[row])), strict=True))
        counts = trace.counts(row)
        assert counts[boundaries[1] if budget.entry else 0] == entered
        assert all(counts[boundary] == count for boundary, count in left.items() if boundary in counts)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen2_vl", "qwen3_vl"])
@SHAPED
@torch.no_grad()
def test_qwen_equals_the_plain_restatement(name, shape):
    """With M-RoPE and, on Qwen3, DeepStack features that are due while the visual tokens are not there."""
    family = FAMILIES[name]
    model = compressed(family, shape)
    compression = attached(model).compression
    for prompt in family.prompts:
        with duet.record(model) as trace:
            out = decode(model, family, [prompt])[1]
        new = out.sequences[0, len(prompt.ids) :]
        wanted = recompute(model, prompt, trace, new, compression)[:-1]
        torch.testing.assert_close(torch.cat(out.logits), wanted, **LOGITS)


@pytest.mark.parametrize("shape", ["late", "late, frozen, counts", "late, away twice, frozen"])
@torch.no_grad()
def test_beams_score_what_recomputing_scores(family, shape):
    model = compressed(family, shape)
    check_beams(model, family, LOGITS)


@pytest.mark.parametrize("method", ["fastv", "sparsevlm"])
@pytest.mark.parametrize("shape", ["late", "frozen"])
@torch.no_grad()
def test_a_rank_by_the_previous_layer_and_merging_inside(family, method, shape):
    """FastV ranks in the layer before the drop, SparseVLM merges what it drops: both late and frozen."""
    budget = replace(family.budget.only(2), **SHAPES[shape])
    model = duet.attach(family.build(), method, budget, positions="keep")
    check_rows_alone(model, family.prompts, family.collate, "left", LOGITS)
    check_decoding(model, family, LOGITS)


@pytest.mark.parametrize("shape", ["late", "late, frozen, counts", "away"])
def test_gradient_checkpointing_changes_nothing(family, shape):
    check_checkpointing(lambda: compressed(family, shape), family)


@SHAPED
@torch.no_grad()
def test_pictures_that_were_read_once(family, shape):
    """A prefix ends before visual tokens enter or leave; `check` compares with asking each question alone."""
    check(compressed(family, shape), family, "left")
    gone = replace(family.budget.only(1), layers=(3,), ratios=(0.0,), frozen=(1,))
    check(duet.attach(family.build(), "visionzip", gone), family, "right")


@torch.no_grad()
def test_frozen_tokens_cost_no_query_and_no_feed_forward(family):
    """The layers run on text rows alone; the stale rows pass through the key and value projections only."""
    model = compressed(family, "frozen")
    layer = model.model.language_model.layers[5]
    rows: dict[str, list[int]] = {}
    parts = {"q_proj": layer.self_attn.q_proj, "k_proj": layer.self_attn.k_proj, "mlp": layer.mlp}
    for name, part in parts.items():
        part.register_forward_hook(
            lambda module, args, output, name=name: rows.setdefault(name, []).append(output.shape[1])
        )
    with duet.record(model) as trace:
        model(**family.collate([family.prompts[0]]))
    left = trace.counts()[4]
    assert left > 0 and rows["q_proj"] == rows["mlp"] and len(rows["k_proj"]) == 2
    assert sum(rows["k_proj"]) == trace.lengths[4][0] and rows["k_proj"][1] >= left


@torch.no_grad()
def test_eager_and_sdpa_agree(family):
    found = []
    for kind in ("sdpa", "eager"):
        model = compressed(family, "late, frozen, counts")
        model.set_attn_implementation(kind)
        found.append(model(**family.collate(family.prompts)).logits)
    torch.testing.assert_close(*found, atol=1e-3, rtol=0)


def test_kernels_without_masks_of_their_own_are_refused(monkeypatch):
    family = FAMILIES["llava"]
    model = compressed(family, "frozen")
    monkeypatch.setattr("duet.engine.checks.attention_backend", lambda config: "flash_attention_2")
    with pytest.raises(ValueError, match="attn_implementation='sdpa' or 'eager'"):
        model(**family.collate(family.prompts))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entry": 2}, "tokens can't be dropped after layer 2: they enter after layer 2"),
        ({"entry": 6, "layers": (), "ratios": ()}, "entry after layer 6: the language model has 6 layers"),
        ({"frozen": 6}, "frozen layer 6: the language model has layers 0 to 5"),
        ({"entry": 1, "frozen": (0, 3)}, "frozen layer 0: visual tokens enter after layer 1"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_when_it_is_attached(changes, message):
    family = FAMILIES["llava"]
    with pytest.raises(duet.errors.UserError, match=message):
        duet.attach(family.build(), "duet", replace(family.budget, **changes))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": (3,), "layers": (2,), "ratios": (0.5,)}, "contradict each other"),
        ({"keep": (3, 4), "layers": (2, 4)}, "must not rise"),
        ({"keep": (0.5,), "layers": (2,)}, "for shares give `ratios`"),
        ({"entry": -1}, "entry is -1"),
        ({"entry": 1.0}, "entry is 1.0"),
        ({"frozen": ()}, "at least one"),
        ({"frozen": (3, 2)}, "must ascend"),
        ({"frozen": True}, "frozen is True"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(duet.errors.UserError, match=message):
        Budget(**fields)
