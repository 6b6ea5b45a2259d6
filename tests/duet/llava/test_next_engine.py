"""Random tiny LLaVA-NeXT models: batches of mixed sizes, decoding, beams, training, refusals, and stock again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from duet.engine.attachment import is_attached
from duet.errors import UserError
from tests.plain_duet import Plan, eager, run
from tests.plain_next import embedder
from tests.tiny_llava import tiny_llava
from tests.tiny_llava_next import IMAGE, Row, collate, make_row, prompt_of, tiny_llava_next
from tests.tiny_parts import check_rows_alone, recomputed

LOGITS = {"atol": 5e-4, "rtol": 0}
#: Answers are words: a generated placeholder could not be recomputed.
GREEDY = {"max_new_tokens": 5, "do_sample": False, "suppress_tokens": [IMAGE]}
#: 16 patches of a crop -> 11 tokens, half of them after two layers, a quarter after four.
BUDGET = Budget(dominant=8, contextual=3, cluster_width=2, layers=(2, 4), ratios=(0.5, 0.25))
METHODS: dict[str, tuple[Budget | None, dict[str, Any]]] = {
    "none": (None, {}),
    "visionzip": (BUDGET.only(1), {"newlines": "drop"}),
    "visionzip_c": (BUDGET.only(1), {"contextual_merge": "paper"}),
    "pyramiddrop": (BUDGET.only(2), {}),
    "duet": (BUDGET, {}),
    "duet_c": (BUDGET, {"positions": "keep"}),
    "duet_c_all": (Budget(0.4, 0.1, layers=(2, 4), ratios=(0.5, 0.0)), {"score": "column_mean", "newlines": "drop"}),
}
#: The same as `BUDGET`, for `tests.plain_duet`.
PLAN = Plan("released", 8, 3, 2, voters="all", layers=(2, 4), ratios=(0.5, 0.25))
NAMES = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llava_next()


@pytest.fixture(scope="module", params=["llama", "mistral"])
def text(request: pytest.FixtureRequest, model: Any) -> Any:
    """A LLaMA with as many key heads as heads, a Mistral with fewer."""
    return model if request.param == "llama" else tiny_llava_next("mistral")


@pytest.fixture(autouse=True)
def stock_again(request: pytest.FixtureRequest):
    yield
    for name in {"model", "text"} & set(request.fixturenames):
        used = request.getfixturevalue(name)
        if is_attached(used):
            duet.detach(used)
        used.eval()
        used.zero_grad(set_to_none=True)


def attach(model: Any, name: str) -> Any:
    budget, switches = METHODS[name]
    return duet.attach(model, name, budget, **switches)


def mixed_rows() -> list[Row]:
    """Four tiles; text; three and two tiles of which half is left; a tall picture; two small ones."""
    wanted = [([(112, 112)], 6), ([], 11), ([(20, 150), (40, 110)], 3), ([(170, 56)], 4), ([(30, 41), (41, 30)], 2)]
    return [prompt_of(make_row(*sizes, text=text, seed=seed)) for seed, (sizes, text) in enumerate(wanted, 1)]


@pytest.mark.parametrize("side", ["left", "right"])
@NAMES
@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(text, name, side):
    attach(text, name)
    check_rows_alone(text, mixed_rows(), collate, side, LOGITS)


@NAMES
def test_greedy_tokens_and_beams_of_a_row_do_not_depend_on_its_neighbours(text, name):
    rows = mixed_rows()
    attach(text, name)
    for beams in (1, 3):
        options = {**GREEDY, "num_beams": beams}
        together = text.generate(**collate(rows), **options)[:, -5:]
        alone = [text.generate(**collate([row]), **options)[0, -5:] for row in rows]
        assert together.tolist() == torch.stack(alone).tolist()


@NAMES
@torch.no_grad()
def test_greedy_decoding_equals_recomputing(text, name):
    attach(text, name)
    for row in mixed_rows():
        out = text.generate(**collate([row]), **GREEDY, output_logits=True, return_dict_in_generate=True)
        new = out.sequences[0, len(row.ids) :]
        torch.testing.assert_close(torch.cat(out.logits), recomputed(text, row, new, collate), **LOGITS)


def test_returned_sequences_repeat_pictures_with_their_rows(model):
    attach(model, "duet")
    several = model.generate(**collate(mixed_rows()), max_new_tokens=3, num_return_sequences=2, do_sample=True, top_k=1)
    assert several[::2].tolist() == several[1::2].tolist()


@torch.no_grad()
def test_method_none_gives_stock_logits_bit_for_bit(text):
    batch = collate(mixed_rows())
    real = batch["attention_mask"].bool()
    wanted, tokens = text(**batch).logits[real], text.generate(**batch, **GREEDY)
    attach(text, "none")
    assert torch.equal(text(**batch).logits[real], wanted)
    assert torch.equal(text.generate(**batch, **GREEDY), tokens)


@pytest.mark.parametrize("name", ["pyramiddrop", "duet", "duet_c"])
@torch.no_grad()
def test_detached_the_model_is_stock_bit_for_bit(model, name, tmp_path):
    batch, words = collate(mixed_rows()), collate(mixed_rows()[1:2])
    wanted, said, tokens = model(**batch).logits, model(**words).logits, model.generate(**batch, **GREEDY)
    attach(model, name)
    assert not torch.equal(model(**batch).logits, wanted)
    assert torch.equal(model(**words).logits, said)
    model.save_pretrained(tmp_path)
    duet.detach(model)
    assert torch.equal(model(**batch).logits, wanted)
    assert torch.equal(model.generate(**batch, **GREEDY), tokens)
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(again.eval()(**batch).logits, wanted)


@torch.no_grad()
def test_every_crop_is_a_unit_and_fewer_crops_get_fewer_tokens(model):
    attach(model, "duet")
    with duet.record(model) as trace:
        model(**collate(mixed_rows()))
    patches = [[unit.assign.shape[1] for unit in row] for row in trace.reductions]
    assert patches == [[16] * 5, [], [16, 8, 8, 8, 16, 8, 8], [16] * 4, [16, 12, 12, 16, 4, 4]]
    counts = [[unit.kept.shape[1] for unit in row] for row in trace.reductions]
    assert counts == [[min(11, number) for number in row] for row in patches]
    assert trace.entered == [sum(row) for row in counts]
    assert [len(stage.kept[0]) for stage in trace.stages] == [27, 13]
    duet.attach(model, "visionzip_c", Budget(0.5, 0.25))
    with duet.record(model) as trace:
        model(**collate(mixed_rows()[2:3]))
    assert [unit.kept.shape[1] for unit in trace.reductions[0]][:4] == [8 + 4, 4 + 2, 4 + 2, 4 + 2]


@torch.no_grad()
def test_newlines_are_neither_ranked_nor_dropped(model):
    row = mixed_rows()[0]
    for newlines, count in (("keep", 8), ("drop", 0)):
        duet.attach(model, "duet", Budget(4, 2, layers=(2, 4), ratios=(0.5, 0.0)), newlines=newlines)
        with duet.record(model) as trace:
            model(**collate([row]))
        words = int((row.ids != IMAGE).sum())
        assert {at: lengths[0] - words for at, lengths in trace.lengths.items()} == {
            0: 30 + count,
            2: 15 + count,
            4: count,
        }
    duet.attach(model, "pyramiddrop", Budget(layers=(3,), ratios=(0.0,)))
    with duet.record(model) as trace:
        model(**collate([row]))
    assert trace.full == trace.entered == [80]
    assert trace.lengths[3] == [words + 8]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_training_equals_the_plain_restatement_and_reaches_all_parts(kind, checkpointing):
    model = tiny_llava_next(kind)
    plain = eager(model)
    if checkpointing:
        model.gradient_checkpointing_enable()
    attach(model, "duet").train()
    rows = [make_row((75, 100), (112, 50), seed=1), make_row(seed=2), make_row((20, 150), seed=3)]
    loss = model(**collate(rows, labels=True)).loss
    loss.backward()
    losses = [run(plain, row, PLAN, labels=row.labels, embed=embedder()).loss(row.labels) for row in rows]
    torch.testing.assert_close(loss, torch.cat(losses).mean(), atol=1e-5, rtol=1e-5)
    torch.cat(losses).mean().backward()
    wanted = dict(plain.named_parameters())
    for name, weight in model.named_parameters():
        if "encoder.layers.2" in name or "post_layernorm" in name:
            assert weight.grad is None
        else:
            torch.testing.assert_close(weight.grad, wanted[name].grad, atol=5e-4, rtol=1e-2)
    assert model.model.image_newline.grad.abs().sum() > 0


def test_loss_of_a_batch_is_the_mean_over_its_rows(model):
    rows = [make_row(*sizes, seed=seed) for seed, sizes in enumerate([((112, 112),), (), ((30, 41), (150, 20))])]
    attach(model, "duet").train()
    alone = torch.stack([model(**collate([row], labels=True)).loss for row in rows]).mean()
    for side in ("left", "right"):
        torch.testing.assert_close(model(**collate(rows, side, labels=True)).loss, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pixels_that_are_not_grouped_by_picture(model):
    row = mixed_rows()[2]
    grouped = collate([row])
    stacked = {**grouped, "pixel_values": torch.cat(row.crops)}
    wanted = model(**grouped).logits
    assert torch.equal(model(**stacked).logits, wanted)
    attach(model, "duet")
    assert torch.equal(model(**stacked).logits, model(**grouped).logits)
    beams = {**GREEDY, "num_beams": 2}
    assert torch.equal(model.generate(**stacked, **beams), model.generate(**grouped, **beams))


@pytest.mark.parametrize("newlines", ["keep", "drop"])
@torch.no_grad()
def test_a_picture_of_one_crop_keeps_its_newline(model, newlines):
    row = prompt_of(make_row((56, 56)))
    words, crop = row.ids[row.ids != IMAGE], row.crops[0][:1]
    ids = torch.cat([words[:2], torch.full((17,), IMAGE), words[2:]])
    one = Row(ids, torch.full_like(ids, -100), [(56, 56)], [crop])
    duet.attach(model, "duet", BUDGET, newlines=newlines)
    with duet.record(model) as trace:
        logits = model(**collate([one])).logits[0]
    assert trace.entered == [11]
    assert trace.lengths == {0: [len(words) + 12], 2: [len(words) + 6], 4: [len(words) + 3]}
    wanted = run(eager(model), one, PLAN, embed=embedder(newlines))
    torch.testing.assert_close(logits[wanted.columns], wanted.logits, **LOGITS)


def test_a_sliding_window_that_is_too_short_is_refused():
    model = tiny_llava_next("mistral", sliding_window=80)
    row = prompt_of(make_row((112, 112)))
    attach(model, "duet")
    with torch.no_grad():
        short = model(**collate([row])).logits
    attach(model, "pyramiddrop")
    with pytest.raises(ValueError, match="more than the sliding window of 80"):
        model(**collate([row]))
    wide = tiny_llava_next("mistral")
    with torch.no_grad():
        torch.testing.assert_close(attach(wide, "duet")(**collate([row])).logits, short, **LOGITS)


def test_what_does_not_fit_is_refused(model):
    attach(model, "duet")
    batch = collate([prompt_of(make_row((112, 112), (40, 110)))])
    with pytest.raises(ValueError, match="pixel_values without image_sizes"):
        model(**{**batch, "image_sizes": None})
    with pytest.raises(ValueError, match=r"make \[5, 3\] crops, but pixel_values is \(1, 5, 3, 56, 56\)"):
        model(**{**batch, "pixel_values": batch["pixel_values"][:1]})
    with pytest.raises(ValueError, match=r"make \[5, 3\] crops, but pixel_values is \(2, 4, 3, 56, 56\)"):
        model(**{**batch, "pixel_values": batch["pixel_values"][:, :4]})
    with pytest.raises(ValueError, match=r"expected \[pictures, crops, 3, H, W\]"):
        model(**{**batch, "pixel_values": batch["pixel_values"][0, 0]})
    with pytest.raises(ValueError, match="placeholders, but the pictures make"):
        model(**{**batch, "image_sizes": torch.tensor([[112, 112], [40, 90]])})


def test_switches_and_models_that_do_not_fit_are_refused(model):
    with pytest.raises(UserError, match="newlines is 'some'; choose keep, drop"):
        duet.attach(model, "duet", BUDGET, newlines="some")
    with pytest.raises(UserError, match="has no stage 1; newlines would do nothing"):
        duet.attach(model, "pyramiddrop", BUDGET.only(2), newlines="drop")
    with pytest.raises(UserError, match="this model has none"):
        duet.attach(tiny_llava(), "duet", BUDGET, newlines="drop")
    whole = tiny_llava_next()
    whole.config.vision_feature_select_strategy = "full"
    with pytest.raises(UserError, match="'full': LLaVA-NeXT assembles tiles from patches only"):
        attach(whole, "duet")
    whole.config.vision_feature_select_strategy, whole.config.vision_config.model_type = (
        "default",
        "siglip_vision_model",
    )
    with pytest.raises(UserError, match="needs clip_vision_model"):
        attach(whole, "duet")
