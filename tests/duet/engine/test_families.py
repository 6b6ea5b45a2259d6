"""What has to hold for every family, on tiny random models: mixed pictures, videos and text in one batch."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import duet
from duet.budget import Budget
from tests.families import FAMILIES
from tests.family_checks import check_beams, check_decoding, decode

LOGITS = {"atol": 2e-4, "rtol": 0}
BOTH = pytest.mark.parametrize("positions", ["keep", "renumber"])


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_none_gives_stock_logits(family, side):
    model, batch = family.build(), family.collate(family.prompts, side)
    wanted, real = model(**batch).logits, batch["attention_mask"].bool()
    assert torch.equal(duet.attach(model, "none")(**batch).logits[real], wanted[real])


@BOTH
@pytest.mark.parametrize("method", ["visionzip_c", "pyramiddrop_all", "duet", "duet_c"])
@torch.no_grad()
def test_a_decoded_batch_equals_each_row_recomputed_whole(family, method, positions):
    model = family.attach(family.build(), method, positions=positions)
    check_decoding(model, family, LOGITS)


@BOTH
@torch.no_grad()
def test_the_caches_of_each_layer_hold_what_the_trace_says(family, positions):
    model = family.attach(family.build(), positions=positions)
    with duet.record(model) as trace:
        cache = model(**family.collate(family.prompts)).past_key_values
    assert list(trace.lengths) == [0, 2, 4]
    widths = [max(trace.lengths[boundary]) for boundary in (0, 0, 2, 2, 4, 4)]
    assert [layer.get_seq_length() for layer in cache.layers] == widths
    text = [len(row.ids) - full for row, full in zip(family.prompts, trace.full, strict=True)]
    for boundary, share in ((0, 1.0), (2, family.budget.ratios[0]), (4, family.budget.ratios[1])):
        left = [int(share * count) for count in trace.entered]
        assert trace.lengths[boundary] == [words + count for words, count in zip(text, left, strict=True)]


@pytest.mark.parametrize("layers", [(1, 5), (0.5, 0.75), (3,)])
@pytest.mark.parametrize("counts", [(1, 0), (3, 1), (0.5, 0.25)])
@torch.no_grad()
def test_other_counts_and_schedules(family, layers, counts):
    """A row of a batch equals the row alone, also with shares instead of counts and with hardly any tokens left."""
    budget = Budget(*counts, cluster_width=3, layers=layers, ratios=(0.7, 0.2)[: len(layers)])
    model = duet.attach(family.build(), "duet", budget)
    for side in ("left", "right"):
        batch = family.collate(family.prompts, side)
        logits = model(**batch).logits
        for number, row in enumerate(family.prompts):
            wanted = model(**family.collate([row])).logits[0]
            torch.testing.assert_close(logits[number, batch["attention_mask"][number].bool()], wanted, **LOGITS)


@torch.no_grad()
def test_samples_follow_their_seed_and_returned_sequences_their_row(family):
    model = family.attach(family.build())

    def draw(seed: int, **options: Any) -> list[list[int]]:
        torch.manual_seed(seed)
        return decode(model, family, family.prompts, do_sample=True, num_return_sequences=3, **options)[0].tolist()

    assert draw(1) == draw(1) != draw(2)
    wanted = decode(model, family, family.prompts)[0].tolist()
    assert draw(1, top_k=1) == [row for row in wanted for _ in range(3)]


@torch.no_grad()
def test_beams_come_in_order_and_score_what_recomputing_scores(family):
    model = family.attach(family.build())
    check_beams(model, family, LOGITS)


@torch.no_grad()
def test_eager_and_sdpa_keep_the_same(family):
    batch, found = family.collate(family.prompts), []
    for kind in ("sdpa", "eager"):
        model = family.build()
        model.set_attn_implementation(kind)
        family.attach(model)
        with duet.record(model) as trace:
            found.append((model(**batch).logits, [[row.tolist() for row in stage.kept] for stage in trace.stages]))
    (one, kept), (other, same) = found
    assert kept == same
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


@torch.no_grad()
def test_saved_while_attached_the_files_are_stock(family, tmp_path):
    model = family.build()
    wanted = model(**family.collate(family.prompts)).logits
    model.save_pretrained(tmp_path / "stock")
    family.attach(model).save_pretrained(tmp_path / "attached")
    files = sorted(file.name for file in (tmp_path / "stock").iterdir())
    assert sorted([*files, "duet_config.json"]) == sorted(file.name for file in (tmp_path / "attached").iterdir())
    for name in files:
        one, other = (tmp_path / folder / name for folder in ("stock", "attached"))
        if name.endswith(".json"):
            assert json.loads(one.read_text()) == json.loads(other.read_text())
    one, other = (load_file(tmp_path / folder / "model.safetensors") for folder in ("stock", "attached"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    again = type(model).from_pretrained(tmp_path / "attached").eval()
    assert torch.equal(again(**family.collate(family.prompts)).logits, wanted)


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_training_loss_is_the_mean_over_targets_and_checkpointing_changes_nothing(family, reentrant):
    plain = family.attach(family.build()).train()
    alone = [(plain(**family.collate([row], labels=True)).loss, int((row.labels != -100).sum())) for row in family.rows]
    wanted = sum(loss * count for loss, count in alone) / sum(count for _, count in alone)
    wanted.backward()
    for side in ("left", "right"):
        model = family.attach(family.build()).train()
        if reentrant is not None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            model.enable_input_require_grads()
        loss = model(**family.collate(family.rows, side, labels=True)).loss
        loss.backward()
        torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=1e-5)
        for (name, weight), same in zip(model.named_parameters(), plain.parameters(), strict=True):
            assert (weight.grad is None) == (same.grad is None), name
            if weight.grad is not None:
                assert (weight.grad - same.grad).norm() <= 1e-4 * same.grad.norm() + 1e-4, name


@torch.no_grad()
def test_labels_are_not_seen_by_the_ranking(family):
    """What is kept for a question does not depend on its answer."""
    model, found = family.attach(family.build()), []
    for answer in ([5, 6], [7, 8, 9]):
        batch = family.collate([family.answered(family.prompts[0], torch.tensor(answer))], labels=True)
        with duet.record(model) as trace:
            model(**batch)
        found.append(trace.stages)
    with duet.record(model) as trace:
        model(**family.collate(family.prompts[:1]))
    for one, other in pairwise((*found, trace.stages)):
        for stage, same in zip(one, other, strict=True):
            assert torch.equal(stage.kept[0], same.kept[0]) and torch.equal(stage.voters[0], same.voters[0])
            torch.testing.assert_close(stage.scores[0], same.scores[0])


@torch.no_grad()
def test_a_prompt_that_is_learned_itself_is_ranked_by_its_last_token(family):
    """`labels=input_ids`: only the last token may vote, and it looks at the pictures."""
    model, batch = family.attach(family.build()), family.collate(family.rows[:1])
    with duet.record(model) as trace:
        model(**batch, labels=batch["input_ids"])
    assert len(trace.stages) == 2
    for stage in trace.stages:
        assert stage.voters[0].tolist() == [batch["input_ids"].shape[1] - 1]
        assert len(stage.scores[0].unique()) > 1


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}])
@torch.no_grad()
def test_pixels_of_no_picture_are_a_prompt_of_words(options):
    """What the forward of stock LLaVA-NeXT takes; the towers of the other families stop at it."""
    family = FAMILIES["llava_next"]
    model, row = family.build(), next(row for row in family.prompts if not row.sizes)
    pixels = {name: family.collate(family.prompts)[name][:0] for name in ("pixel_values", "image_sizes")}
    words = family.collate([row])
    try:
        logits = model(**words, **pixels).logits
    except UnboundLocalError:
        pytest.skip("stock LLaVA-NeXT of transformers 5.17 stops at them, too")
    wanted = model.generate(**words, max_new_tokens=3, do_sample=False, **options)
    family.attach(model)
    assert torch.equal(model(**words, **pixels).logits, logits)
    assert torch.equal(model.generate(**words, **pixels, max_new_tokens=3, do_sample=False, **options), wanted)


@pytest.mark.parametrize("first", ["attach", "wrap"])
def test_lora_trains_under_compression_and_merges(family, first):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = peft.LoraConfig(r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)")
    batch = family.collate(family.rows, labels=True)
    wanted = family.attach(family.build()).train()(**batch).loss
    model = family.build()
    if first == "attach":
        family.attach(model)
    model = peft.get_peft_model(model, config)
    if first == "wrap":
        family.attach(model)
    loss = model.train()(**batch).loss
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert trained and all("lora" in name for name in trained)
    tokens = decode(model.eval(), family, family.prompts)[0]
    assert torch.equal(decode(model.merge_and_unload(), family, family.prompts)[0], tokens)
