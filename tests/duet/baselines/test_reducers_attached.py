"""Every reducer before the language model on a tiny LLaVA: attached by name, at its budget, rows as if alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from duet.errors import UserError
from tests.duet.baselines.inputs import NAMES
from tests.families import FAMILIES
from tests.tiny_llava import LAYERS, PATCHES, collate, make_row, tiny_llava
from tests.tiny_parts import check_rows_alone
from tests.tiny_words import save_tiny_clip, tiny_tokenizer

ROWS = [make_row(pictures, text, seed=seed) for seed, (pictures, text) in enumerate([(1, 6), (2, 3), (0, 4), (1, 5)])]
#: Methods whose table row has a stage 2 as well.
BOTH = ("vscan", "tops")
TOLERANCE = {"atol": 2e-4, "rtol": 0}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def attached(model: Any, name: str, clip: str, **options: Any) -> Any:
    """A method with 7 tokens of a unit before the language model; where it has a stage 2, 3 and 1 of them later."""
    stage2 = {"layers": (2, 4), "ratios": (0.5, 0.2)} if name in BOTH else {}
    companion = {"companion": clip} if name == "cdpruner" else {}
    budget = Budget(dominant=7, **stage2)
    words = tiny_tokenizer(model.config.get_text_config().vocab_size)
    return duet.attach(model, name, budget, tokenizer=words, **companion, **options)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_keeps_as_many_tokens_as_its_budget_says(name, clip):
    model = attached(tiny_llava(), name, clip)
    with duet.record(model) as trace:
        model(**collate(ROWS))
    assert trace.entered == [7, 14, 0, 7]
    for row in trace.reductions:
        for reduction in row:
            kept = reduction.kept[0]
            assert len(kept) == 7 and (kept.diff() > 0).all() and kept[0] >= 0 and kept[-1] < PATCHES
    for stage, share in zip(trace.stages, (0.5, 0.2), strict=False):
        assert [len(row) for row in stage.kept] == [int(share * count) for count in (7, 14, 0, 7)]
    assert len(trace.stages) == (2 if name in BOTH else 0)


@pytest.mark.parametrize("positions", ["renumber", "keep"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_row_alone_equals_the_row_in_a_batch(name, side, positions, clip):
    check_rows_alone(attached(tiny_llava(), name, clip, positions=positions), ROWS, collate, side, TOLERANCE)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "llava"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_runs_on_every_family_that_gives_its_needs(name, family, clip):
    known = FAMILIES[family]
    model = known.build()
    if name == "cdpruner" and "qwen" in family:
        with pytest.raises(UserError, match="clip_text_embeds from the vision tower, which Qwen"):
            attached(model, name, clip)
        return
    check_rows_alone(attached(model, name, clip), known.prompts, known.collate, "left", TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_training_reaches_the_projector(name, clip):
    model = attached(tiny_llava(), name, clip).train()
    model(**collate(ROWS, labels=True)).loss.backward()
    gradient = model.model.multi_modal_projector.linear_1.weight.grad
    assert gradient.isfinite().all() and gradient.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_all_tokens_are_the_stock_model(name, clip):
    """With every patch kept nothing is left of a method but the order, which is raster order."""
    model = tiny_llava()
    batch = collate(ROWS)
    stock = model(**batch).logits
    companion = {"companion": clip} if name == "cdpruner" else {}
    method = f"stage1:{name}"
    duet.attach(model, method, Budget(dominant=PATCHES), tokenizer=tiny_tokenizer(), **companion)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(model(**batch).logits[real], stock[real], **TOLERANCE)


@torch.no_grad()
def test_the_question_chooses_the_patches_of_mmtok_and_cdpruner(clip):
    first, second = make_row(1, 6, seed=0), make_row(1, 6, seed=0)
    second.ids = torch.where((second.ids < 95) & (torch.arange(len(second.ids)) > len(second.ids) - 6), 40, second.ids)
    for name in ("mmtok", "cdpruner"):
        model, kept = attached(tiny_llava(), name, clip), []
        for row in (first, second):
            with duet.record(model) as trace:
                model(**collate([row]))
            kept.append(trace.reductions[0][0].kept.tolist())
        assert kept[0] != kept[1]


@pytest.mark.parametrize("family", ["llava_next", "videollava", "qwen2_5_vl"])
@torch.no_grad()
def test_divprune_spreads_its_tokens_over_a_whole_medium(family):
    """As many in all as other methods keep per unit; which unit has how many is the method's choice."""
    known = FAMILIES[family]
    counts = {}
    for name in ("divprune", "uniform"):
        model = duet.attach(known.build(), name, Budget(dominant=4))
        with duet.record(model) as trace:
            model(**known.collate(known.prompts))
        counts[name] = [[reduction.kept.shape[1] for reduction in row] for row in trace.reductions]
    assert [sum(row) for row in counts["divprune"]] == [sum(row) for row in counts["uniform"]]
    check_rows_alone(
        duet.attach(known.build(), "divprune", Budget(dominant=4)), known.prompts, known.collate, "left", TOLERANCE
    )


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_an_average_is_met(name, clip):
    """Visual tokens that enter each layer, averaged: 5, within what whole tokens and few layers allow."""
    companion = {"companion": clip} if name == "cdpruner" else {}
    model = duet.attach(tiny_llava(), name, 5.0, tokenizer=tiny_tokenizer(), **companion)
    with duet.record(model) as trace:
        model(**collate(ROWS[:1]))
    counts, left = trace.counts(), 0
    average = 0.0
    for layer in range(LAYERS):
        left = counts.get(layer, left)
        average += left / LAYERS
    assert average == pytest.approx(5, abs=0.5)
    assert len(counts) == 1 + (name == "vscan") + 2 * (name == "tops")
