"""VidCom2, FastVID and HoliTom on the tiny models of all families: by name, at a video's budget, rows as if alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import duet
from duet.baselines import vidcom2
from duet.budget import Budget
from duet.engine.attachment import attached
from tests import tiny_qwen3, tiny_video_llava
from tests.families import FAMILIES
from tests.tiny_parts import check_rows_alone

TOLERANCE = {"atol": 2e-4, "rtol": 0}
methods = pytest.mark.parametrize("name", ["vidcom2", "fastvid", "holitom"])
families = pytest.mark.parametrize("family", FAMILIES)


def compressed(family: str, name: str, stage2: bool = False) -> Any:
    if stage2:
        budget = Budget(4, layers=(2, 4), ratios=(0.6, 0.25))
        return duet.attach(FAMILIES[family].build(), f"stage1:{name}+stage2:duet_prune", budget)
    return duet.attach(FAMILIES[family].build(), name, Budget(4))


@methods
@families
@torch.no_grad()
def test_a_medium_has_as_many_tokens_as_its_units_have_together(name, family):
    """`uniform` counts unit by unit."""
    known, entered = FAMILIES[family], {}
    for method in (name, "uniform"):
        model = compressed(family, method)
        with duet.record(model) as trace:
            model(**known.collate(known.prompts))
        entered[method] = trace.entered
    assert entered[name] == entered["uniform"]


@methods
@families
@pytest.mark.parametrize("stage2", [False, True])
@torch.no_grad()
def test_a_row_alone_equals_the_row_in_a_batch(name, family, stage2):
    known = FAMILIES[family]
    side = "right" if stage2 else "left"
    check_rows_alone(compressed(family, name, stage2), known.prompts, known.collate, side, TOLERANCE)


@methods
@families
def test_it_trains_and_generates(name, family):
    known = FAMILIES[family]
    model = compressed(family, name)
    model.generate(**known.collate(known.prompts), max_new_tokens=2, do_sample=False)
    model.train()(**known.collate(known.rows, labels=True)).loss.backward()
    projector = model.get_submodule(known.vision[-1])
    gradients = [weight.grad for weight in projector.parameters() if weight.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    assert max(gradient.abs().max() for gradient in gradients) > 0


@methods
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl"])
@torch.no_grad()
def test_all_tokens_are_the_stock_model(name, family):
    known = FAMILIES[family]
    model, batch = known.build(), known.collate(known.prompts)
    stock = model(**batch).logits
    size = 16 if family == "llava" else 100
    duet.attach(model, name, Budget(size))
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(model(**batch).logits[real], stock[real], **TOLERANCE)


@torch.no_grad()
def test_frames_keep_what_select_says():
    """On Video-LLaVA, as patches of each frame; frames keep different counts."""
    row = tiny_video_llava.make_row("v", seed=1)
    model = duet.attach(tiny_video_llava.tiny_video_llava(), "vidcom2", Budget(4))
    batch = tiny_video_llava.collate([row])
    with duet.record(model) as trace:
        model(**batch)
    kept = [unit.kept[0] + number * tiny_video_llava.PATCHES for number, unit in enumerate(trace.reductions[0])]
    tower = model.model.video_tower(batch["pixel_values_videos"][0], output_hidden_states=True)
    features = model.model.multi_modal_projector(tower.hidden_states[model.config.vision_feature_layer][:, 1:])
    assert torch.cat(kept).tolist() == vidcom2.select(keep=4 * len(kept), features=features)[0].tolist()
    assert len({len(unit) for unit in kept}) > 1


@pytest.mark.parametrize("name", ["fastvid", "holitom"])
@torch.no_grad()
def test_merged_tokens_carry_their_deeper_features_along(name):
    """One map for all levels: a token's DeepStack features are merged like its features."""
    model = duet.attach(tiny_qwen3.tiny_qwen3(), name, Budget(4))
    row = tiny_qwen3.make_row((3, 3, 4), seed=2)
    noting = Noting(attached(model).compression.reducer)
    object.__setattr__(attached(model).compression, "reducer", noting)
    with duet.record(model) as trace:
        model(**tiny_qwen3.collate([row]))
    ((states, edit),) = noting.seen
    assert edit.merges and len(states.deep) == len(tiny_qwen3.DEEP)
    for level, features in enumerate(states.deep):
        found = torch.cat([unit.deep[level][0] for unit in trace.reductions[0]])
        torch.testing.assert_close(found, edit.apply(features)[0])


class Noting:
    """A reducer that notes what it was given and what it said."""

    def __init__(self, reducer):
        self.needs, self.scope, self.contextual = reducer.needs, reducer.scope, reducer.contextual
        self.reducer, self.seen = reducer, []

    def __call__(self, states, budget):
        self.seen.append((states, self.reducer(states, budget)))
        return self.seen[-1][1]
