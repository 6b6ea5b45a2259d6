"""Pictures that were read once: every question about them gets what it gets alone, for every family and method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from duet.engine.attachment import attached
from duet.engine.seen import Gallery, in_view
from duet.method_table import METHODS, find_method
from duet.registry import backbones_of
from tests.families import FAMILIES, Family
from tests.tiny_words import save_tiny_clip, tiny_tokenizer

LOGITS = {"atol": 3e-4, "rtol": 0}
#: Answers of different lengths stand in for questions: the rows of a family end with some words.
WORDS = ([3, 4, 5], [6, 7, 8, 9, 10])


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def questions(family: Family) -> list[Any]:
    """Two questions about the pictures of each prompt; one prompt has none."""
    rows = [family.answered(row, torch.tensor(words)) for row in family.prompts for words in WORDS]
    return [type(row)(**{**vars(row), "labels": torch.full_like(row.ids, -100)}) for row in rows]


def views(model: Any, family: Family, rows: list[Any], gallery: Gallery) -> list[Any]:
    """The pictures of each row, read one prompt at a time; None without pictures."""
    vision = attached(model).compression.vision
    found = []
    for number, row in enumerate(rows):
        inputs = family.collate([row])
        pictured = any(len(inputs.get(name, ())) for name in vision.pixel_names)
        found.append(gallery.look(model, [(number // 2, inputs)])[0] if pictured else None)
    return found


def attach(family: Family, method: str, clip: str, **switches: str) -> Any:
    """A method with its part of the family's budget."""
    model, parts = family.build(), find_method(method)
    budget: Any = None
    if parts.stages:
        plain = parts.reducer is not None and not parts.reducer.factory.contextual
        whole = replace(family.budget, dominant=5, contextual=0) if plain else family.budget
        budget = whole if len(parts.stages) == 2 else whole.only(parts.stages[0])
    companion = {"companion": clip} if method == "cdpruner" else {}
    words = tiny_tokenizer(model.config.get_text_config().vocab_size)
    return duet.attach(model, method, budget, tokenizer=words, **companion, **switches)


def check(model: Any, family: Family, side: str) -> Gallery:
    """Logits, kept sets and voters in a batch are those without sharing."""
    rows, gallery = questions(family), Gallery()
    batch, seen = family.collate(rows, side), views(model, family, rows, gallery)
    with duet.record(model) as alone:
        wanted = model(**batch).logits
    with in_view(model, seen), duet.record(model) as shared:
        found = model(**batch).logits
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], wanted[real], **LOGITS)
    assert (shared.entered, shared.full) == (alone.entered, alone.full)
    for name in ("origins", "columns"):
        for one, other in zip(getattr(shared, name), getattr(alone, name), strict=True):
            assert torch.equal(one, other)
    assert shared.lengths == alone.lengths
    for stage, other in zip(shared.stages, alone.stages, strict=True):
        for name in ("kept", "candidates", "voters"):
            pairs = zip(getattr(stage, name), getattr(other, name), strict=True)
            assert all(torch.equal(left, right) for left, right in pairs)
    return gallery


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", ["keep", "renumber"])
@pytest.mark.parametrize("method", ["none", "duet", "fastv"])
@torch.no_grad()
def test_questions_about_read_pictures_get_the_same(family, method, positions, side, clip):
    check(attach(family, method, clip, positions=positions), family, side)


@pytest.mark.parametrize("method", sorted(METHODS))
@torch.no_grad()
def test_every_method(method, clip):
    for name, title in (("llava", "LLaVA-1.5"), ("llava_next", "LLaVA-NeXT"), ("qwen2_5_vl", "Qwen2.5-VL")):
        if title in backbones_of(find_method(method)):
            check(attach(FAMILIES[name], method, clip), FAMILIES[name], "left")


@pytest.mark.parametrize("shape", [{"entry": 1}, {"frozen": (1, 3, 4)}, {"layers": (3,), "ratios": (0.0,)}])
@torch.no_grad()
def test_late_entry_frozen_layers_and_exits(family, shape):
    model, budget = family.build(), replace(family.budget, **shape)
    check(duet.attach(model, "visionzip_c" if "layers" in shape else "duet", budget), family, "left")


@pytest.mark.parametrize("method", ["duet", "mmtok"])
@torch.no_grad()
def test_generated_tokens_are_the_same_also_with_beams_and_other_caches(family, method, clip):
    model, rows, gallery = attach(family, method, clip), questions(family), Gallery()
    batch, seen = family.collate(rows), views(model, family, rows, gallery)
    static = {"cache_implementation": "static"}
    for options in ({}, static, {"num_beams": 2, "num_return_sequences": 2}, {"use_cache": False}):
        asked = {**batch, "max_new_tokens": 4, "do_sample": False}
        wanted = model.generate(**asked, **({} if options is static else options))
        with in_view(model, seen):
            assert torch.equal(model.generate(**asked, **options), wanted)


@torch.no_grad()
def test_pixels_are_not_needed_again(family, clip):
    model, row = attach(family, "duet", clip), questions(family)[0]
    inputs = family.collate([row])
    wanted = model(**inputs).logits
    picture = Gallery().look(model, [("", inputs)])[0]
    words = {name: inputs[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids") if name in inputs}
    whole = picture.stand_in(words)
    pixels = [whole[name] for name in attached(model).compression.vision.pixel_names if name in whole]
    assert pixels and all(one.is_meta for one in pixels)
    with in_view(model, [picture]):
        torch.testing.assert_close(model(**whole).logits, wanted, **LOGITS)


@torch.no_grad()
def test_a_labelled_answer_has_the_same_loss(family, clip):
    model = attach(family, "duet", clip)
    row = family.answered(questions(family)[0], torch.tensor([7, 8]))
    batch = family.collate([row], labels=True)
    wanted = model(**batch).loss
    picture = Gallery().look(model, [("", batch)])[0]
    with in_view(model, [picture]):
        torch.testing.assert_close(model(**batch).loss, wanted, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_tower_runs_once_for_all_methods_and_stage_1_once_for_equal_counts(clip):
    family = FAMILIES["llava"]
    model, row = family.build(), questions(family)[0]
    inputs, towers, projectors = family.collate([row]), [], []
    model.model.vision_tower.encoder.layers[0].register_forward_hook(lambda *_: towers.append(1))
    model.model.multi_modal_projector.register_forward_hook(lambda *_: projectors.append(1))
    gallery = Gallery(tower_bytes=1 << 20)
    later = replace(family.budget, layers=(3, 5), ratios=(0.5, 0.0))
    words = tiny_tokenizer(model.config.get_text_config().vocab_size)
    for method, budget, ran in (
        ("duet", family.budget, (1, 1)),
        ("duet", later, (0, 0)),
        ("duet_c", later, (0, 0)),
        ("visionzip", family.budget.only(1), (0, 1)),
        ("scope", Budget(5), (0, 1)),
        ("holov", Budget(5), (0, 2)),  # it also reads projected features
        ("duet", replace(family.budget, dominant=5), (0, 1)),
    ):
        duet.attach(model, method, budget, tokenizer=words)
        towers.clear()
        projectors.clear()
        picture = gallery.look(model, [("one", inputs)])[0]
        assert (len(towers), len(projectors)) == ran, method
        with in_view(model, [picture]):
            found = model(**picture.stand_in(inputs)).logits
        torch.testing.assert_close(found, model(**inputs).logits, **LOGITS)


@torch.no_grad()
def test_memory_is_counted_bounded_and_freed(clip):
    """Room for one picture: the one that was not used for longest goes first."""
    family = FAMILIES["llava"]
    model, rows = attach(family, "duet", clip), [questions(family)[number] for number in (0, 2)]
    one = Gallery()
    held = one.look(model, [("a", family.collate(rows[:1]))])[0].prefix
    assert held is not None
    assert one.nbytes >= sum(part.nbytes for pair in held.cached for part in pair) > 0
    small, found = Gallery(prefix_bytes=one.nbytes), []
    for number in (0, 0, 1, 1, 0):
        small.look(model, [("ab"[number], family.collate([rows[number]]))])
        found.append((small.hits, small.misses, len(small._pictures)))
    assert found == [(0, 1, 1), (1, 1, 1), (1, 2, 1), (2, 2, 1), (2, 3, 1)]
    small.clear()
    assert small.nbytes == 0


@pytest.mark.parametrize("wrong", ["other text", "no question", "another picture"])
@torch.no_grad()
def test_a_prompt_that_begins_otherwise_is_refused(wrong, clip):
    family = FAMILIES["llava"]
    model, row = attach(family, "duet", clip), questions(family)[0]
    inputs = family.collate([row])
    picture = Gallery().look(model, [("", inputs)])[0]
    ids = inputs["input_ids"]
    if wrong == "other text":
        first = int((ids[0] == model.config.image_token_id).nonzero()[0])
        changed = torch.cat([ids[:, :first], ids[:, :1], ids[:, first:]], 1)
    elif wrong == "no question":
        changed = ids[:, : len(picture.head)]
    else:
        changed = torch.cat([ids, ids[:, -1:].fill_(model.config.image_token_id), ids[:, :1]], 1)
    batch = {**inputs, "input_ids": changed, "attention_mask": torch.ones_like(changed)}
    with in_view(model, [picture]), pytest.raises(ValueError, match=r"prompt rows \[0\] are not their pictures"):
        model(**batch)


def test_training_is_refused(clip):
    family = FAMILIES["llava"]
    model, row = attach(family, "duet", clip), questions(family)[0]
    inputs = family.collate([row])
    picture = Gallery().look(model, [("", inputs)])[0]
    model.train()
    with in_view(model, [picture]), pytest.raises(ValueError, match="have no gradient"):
        model(**inputs)
