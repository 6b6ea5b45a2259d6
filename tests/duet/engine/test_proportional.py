"""Proportional attention: a merged token counts as often as it has patches, in every layer and while answering."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from duet.cover.cover import clusters, select
from duet.cover.prune import CoverPrune
from duet.edit import NONE, Edit
from duet.engine.attachment import attached, exchange_compression
from duet.engine.proportional import after_edit, weighted
from duet.engine.tokens import Tokens
from duet.errors import UserError
from tests.duet.engine.test_seen import check
from tests.families import FAMILIES, Family
from tests.family_checks import check_beams, check_checkpointing, check_decoding
from tests.tiny_llava import IMAGE, PATCHES, collate, make_row, prompt_of, tiny_llava
from tests.tiny_parts import check_rows_alone

LOGITS = {"atol": 3e-4, "rtol": 0}
SIZED = {"positions": "keep", "attention": "proportional"}
SHAPES: dict[str, dict[str, Any]] = {
    "two drops": {"layers": (1, 3), "ratios": (0.6, 0.3)},
    "frozen": {"layers": (2,), "ratios": (0.5,), "frozen": 3},
    "away": {"layers": (2,), "ratios": (0.5,), "away": (4,)},
}
SHAPED = pytest.mark.parametrize("shape", SHAPES)


@pytest.fixture(params=["llava", "llava_next", "qwen2_5_vl"])
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


def compressed(family: Family, shape: str, **switches: str) -> Any:
    budget = Budget(dominant=4, **SHAPES[shape])
    return duet.attach(family.build(), "duet_cover", budget, **{**SIZED, **switches})


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@torch.no_grad()
def test_a_merged_token_is_as_good_as_so_many_copies_of_it(kernel):
    """Restated with stock layers: each token is repeated at its position, and copies see each other."""
    model, row = tiny_llava(), make_row(1, 6, seed=3)
    model.set_attn_implementation(kernel)
    duet.attach(model, "stage1:cover", Budget(dominant=4), **SIZED)
    found = model(**collate([row])).logits[0, -1]
    duet.detach(model)
    pixels = collate([row])["pixel_values"]
    features = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    kept = select(keep=4, features=features).sort(-1).values
    edit = clusters(features, kept, -1.0)
    assert edit.sizes.sum() == features.shape[1] and edit.sizes.max() > 1
    pictures = model.model.multi_modal_projector(edit.apply(features))[0]
    words = model.get_input_embeddings()(row.ids)
    first = int((row.ids == IMAGE).int().argmax())
    copies: list[tuple[torch.Tensor, int]] = []
    for place, token in enumerate(row.ids.tolist()):
        if token != IMAGE:
            copies.append((words[place], place))
        elif place - first in kept[0].tolist():
            number = kept[0].tolist().index(place - first)
            copies += [(pictures[number], place)] * int(edit.sizes[0, number])
    positions = torch.tensor([place for _, place in copies])
    mask = torch.zeros(len(copies), len(copies)).masked_fill(positions > positions[:, None], -1e9)
    states = model.model.language_model(
        inputs_embeds=torch.stack([state for state, _ in copies])[None],
        position_ids=positions[None],
        attention_mask=mask[None, None],
        use_cache=False,
    ).last_hidden_state
    torch.testing.assert_close(found, model.lm_head(states[0, -1]), **LOGITS)


@torch.no_grad()
def test_without_merging_nothing_changes():
    found = []
    for attention in ("plain", "proportional"):
        model = duet.attach(
            tiny_llava(), "stage1:cover", Budget(dominant=4), merge="none", **{**SIZED, "attention": attention}
        )
        found.append(model(**collate([make_row(1, 6), make_row(2, 4)])).logits)
    torch.testing.assert_close(*found)


@SHAPED
@torch.no_grad()
def test_a_decoded_batch_equals_each_row_recomputed_whole(family, shape):
    model = compressed(family, shape)
    check_decoding(model, family, LOGITS)


@SHAPED
@torch.no_grad()
def test_rows_and_read_pictures_do_not_depend_on_their_company(family, shape):
    model = compressed(family, shape)
    check_rows_alone(model, family.prompts, family.collate, "left", LOGITS)
    check(model, family, "left")


@torch.no_grad()
def test_beams_follow(family):
    model = compressed(family, "two drops")
    check_beams(model, family, LOGITS)


@torch.no_grad()
def test_it_changes_answers_and_leaves_no_trace(family):
    plain = compressed(family, "two drops", attention="plain")
    batch = family.collate(family.prompts)
    wanted = plain(**batch).logits
    sized = duet.attach(plain, "duet_cover", Budget(dominant=4, **SHAPES["two drops"]), **SIZED)
    assert not torch.allclose(sized(**batch).logits, wanted, atol=1e-3)
    again = duet.attach(sized, "duet_cover", Budget(dominant=4, **SHAPES["two drops"]), positions="keep")
    torch.testing.assert_close(again(**batch).logits, wanted)


def test_a_drop_that_merges_hands_over_sizes():
    columns = torch.arange(6)[None]
    tokens = Tokens(torch.zeros(1, 6, 1), columns, torch.ones(1, 6, dtype=torch.bool), columns, False, False)
    sizes = torch.tensor([[1.0, 4.0, 2.0, 3.0, 1.0, 1.0]])
    edit = Edit(
        kept=torch.tensor([[1, 3, NONE]]),
        tokens=6,
        source=torch.tensor([[2, NONE]]),
        target=torch.tensor([[1, 0]]),
        weight=torch.tensor([[0.5, 0.0]]),
        share=torch.tensor([[1.0, 0.5, 1.0]]),
        contextual=3,
    )
    assert after_edit(sizes, edit, tokens).tolist() == [[1.0, 4.0, 2.0, 5.0, 1.0, 1.0]]


def test_a_mask_that_is_left_out_is_causal():
    bias = torch.tensor([[0.5, 1.0]])
    found = weighted(None, bias, torch.zeros(1, 2, 8), keys=4)
    assert found[0, 0, 1].tolist() == [0.5, 1.0, 0.0, 0.0]
    assert found[0, 0, 0, 3] < -1e30 and found[0, 0, 0, 2] == 0
    assert weighted(None, None, torch.zeros(1, 2, 8), keys=4) is None


def test_what_cannot_work_is_refused(monkeypatch):
    with pytest.raises(UserError, match="no stage 1"):
        duet.attach(tiny_llava(), "pyramiddrop", Budget(layers=(2,), ratios=(0.5,)), attention="proportional")
    with pytest.raises(UserError, match="plain"):
        duet.attach(tiny_llava(), "stage1:cover", Budget(dominant=4), attention="sizes")
    monkeypatch.setattr("duet.engine.proportional.attention_backend", lambda config: "flash_attention_2")
    with pytest.raises(UserError, match="flash_attention_2: load it with one of them, or leave attention=plain"):
        duet.attach(tiny_llava(), "stage1:cover", Budget(dominant=4), **SIZED)


def test_gradients_with_checkpointing():
    check_checkpointing(lambda: compressed(FAMILIES["llava"], "two drops"), FAMILIES["llava"])


def test_copies_of_a_budget_keep_it():
    model = compressed(FAMILIES["llava"], "two drops")
    compression = attached(model).compression
    assert compression.under(replace(compression.budget, dominant=3), 6).proportional


@torch.no_grad()
def test_a_stage_2_sees_the_sizes():
    seen: list[torch.Tensor | None] = []

    class Looks(CoverPrune):
        def edit(self, view, scores, counts):
            seen.append(view.sizes if view.sizes is None else view.sizes[view.visual])
            return super().edit(view, scores, counts)

    for attention in ("proportional", "plain"):
        budget = Budget(dominant=6, layers=(2, 4), ratios=(0.5, 0.25))
        model = duet.attach(tiny_llava(), "duet_cover", budget, attention=attention)
        exchange_compression(model, replace(attached(model).compression, pruner=Looks()))
        model(**collate([prompt_of(make_row(1, 5))]))
    first, second = seen[:2]
    assert len(first) == 6 and len(second) == 3 and first.sum() == second.sum() == PATCHES
    assert seen[2:] == [None, None]
