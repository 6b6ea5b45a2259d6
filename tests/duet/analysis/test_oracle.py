"""The oracle: its losses, both of its orders, and how rules are compared with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import duet
from duet.analysis.oracle import (
    DROP,
    ELIMINATION,
    ENTERED,
    Given,
    Place,
    _Trial,
    ask,
    divergence,
    measure_oracle,
    measure_rule,
    rank_correlation,
)
from duet.analysis.oracle_table import oracle_table
from duet.budget import Budget
from duet.cli.main import main
from duet.engine.attach import attach_compression
from duet.engine.attachment import attached
from duet.eval.asking.answerer import Answerer
from duet.eval.asking.task import read_task
from duet.likelihood import answer_logits
from tests.small_world import random_model, write_questions


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("oracle")
    write_questions(root / "data", "pope", count=3)
    return root


@pytest.fixture(scope="module")
def answerer(world: Path) -> Answerer:
    return Answerer.load(random_model(), device="cpu")


def measured(answerer, world, place, group=1):
    task = read_task(answerer, "pope", world / "data", 1)
    prompts = [answerer.encode(text, sample.images) for text, sample in zip(task.prompts, task.samples, strict=True)]
    asked = ask(answerer, prompts[:2], 3)
    measure_oracle(answerer, place, asked, group, 7)
    return asked


def test_nothing_dropped_loses_nothing(answerer, world):
    place = Place("none", None, 2, (0.9,))
    (one, _) = measured(answerer, world, place)
    with pytest.raises(ValueError, match="no compression is attached"):
        attached(answerer.model)
    assert (one.full.exp().sum(-1) - 1).abs().max() < 1e-5
    assert float(divergence(one.full, one.full[None])[0]) == 0
    assert (one.drop > 0).all() and one.drop.std() > 0


def test_given_tokens_are_those_of_a_rule(answerer, world):
    """Leaving what PyramidDrop leaves is PyramidDrop."""
    place = Place("cover", 12, 2, (0.5,))
    asked = measured(answerer, world, place)
    measure_rule(answerer, place, "pyramiddrop", asked)
    model, one = answerer.model, asked[0]
    duet.attach(model, place.method("pyramiddrop"), place.budget(0.5), positions="keep")
    with duet.record(model) as trace:
        list(answer_logits(model, one.inputs, [(0, one.answer)], 1))
    keep = torch.zeros(1, 12, dtype=torch.bool).index_fill(1, trace.stages[0].kept[0], True)
    duet.detach(model)
    duet.attach(model, place.method("random_rank"), place.budget(0.999), positions="keep")
    given = Given()
    attach_compression(model, replace(attached(model).compression, pruner=given))
    loss = float(_Trial(model, given, one, 4).losses(keep)[0])
    duet.detach(model)
    assert loss == pytest.approx(one.choices["pyramiddrop"].loss[0.5], abs=1e-6)


def test_the_oracle_is_no_worse_than_any_rule_that_it_can_imitate(answerer, world):
    """One token less: the best choice is the token whose loss is smallest, and the elimination finds the same."""
    place = Place("cover", 6, 2, (0.84,))
    asked = measured(answerer, world, place)
    for rule in ("duet_prune", "inverted", "random_rank"):
        measure_rule(answerer, place, rule, asked)
    for one in asked:
        assert one.choices[DROP].loss[0.84] == pytest.approx(float(one.drop.min()), abs=1e-6)
        assert one.choices[ELIMINATION].loss[0.84] == pytest.approx(float(one.drop.min()), abs=1e-6)
        rules = [choice for name, choice in one.choices.items() if name != ENTERED]
        assert all(choice.loss[0.84] >= float(one.drop.min()) - 1e-6 for choice in rules)
        assert set(one.correlation) <= {"duet_prune", "inverted", "random_rank"}


def test_nothing_dropped_is_stage_1_alone(answerer, world):
    place = Place("cover", 6, 2, (0.84,))
    asked = measured(answerer, world, place)
    duet.attach(answerer.model, "stage1:cover", Budget(dominant=6), positions="keep")
    for one in asked:
        (_, _, logits), *_ = answer_logits(answerer.model, one.inputs, [(0, one.answer)], 1)
        assert one.choices[ENTERED].loss[0.84] == pytest.approx(float(divergence(one.full, logits[None])[0]), abs=1e-6)
    duet.detach(answerer.model)


def test_with_proportional_attention_the_oracles_merge_as_our_rule_does(answerer, world):
    """Given what `cover_prune` keeps, the loss is that of `cover_prune`."""
    place = Place("cover", 12, 2, (0.5,), "proportional")
    asked = measured(answerer, world, place)
    measure_rule(answerer, place, "cover_prune", asked)
    model, one = answerer.model, asked[0]
    switches = {"positions": "keep", "attention": "proportional"}
    duet.attach(model, place.method("cover_prune"), place.budget(0.5), **switches)
    with duet.record(model) as trace:
        list(answer_logits(model, one.inputs, [(0, one.answer)], 1))
    keep = torch.zeros(1, 12, dtype=torch.bool).index_fill(1, trace.stages[0].kept[0], True)
    given = Given(merge=True)
    attach_compression(model, replace(attached(model).compression, pruner=given))
    loss = float(_Trial(model, given, one, 4).losses(keep)[0])
    duet.detach(model)
    assert loss == pytest.approx(one.choices["cover_prune"].loss[0.5], abs=1e-6)


def test_groups_share_their_loss(answerer, world):
    asked = measured(answerer, world, Place("cover", 10, 2, (0.5, 0.2)), group=3)
    for one in asked:
        assert one.drop.shape == (10,)
        assert len(one.drop[:3].unique()) == len(one.drop[3:6].unique()) == 1
        assert set(one.choices[ELIMINATION].loss) == {0.5, 0.2}


def test_rank_correlation():
    a = torch.tensor([1.0, 2.0, 2.0, 5.0])
    assert rank_correlation(a, a * 3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    assert rank_correlation(a, torch.ones(4)) is None


def test_the_table(answerer, world):
    place = Place("cover", 6, 2, (0.84,))
    asked = measured(answerer, world, place)
    measure_rule(answerer, place, "duet_prune", asked)
    table = oracle_table(place, asked, 6, 1)
    assert {row[0] for row in table.rows} == {DROP, ELIMINATION, ENTERED, "duet_prune"}
    assert all(record["gap@0.84"][1] <= record["gap@0.84"][0] <= record["gap@0.84"][2] for record in table.records)


def test_the_command(world, capsys):
    words = ["oracle", "--model", random_model(), "--tasks", "pope", "--data", str(world / "data"), "--limit", "1"]
    words += ["--dominant", "6", "--layer", "2", "--shares", "0.5", "--rules", "duet_prune,scope_rank"]
    assert main(words) == 2
    assert "scope_rank" in capsys.readouterr().err
    words[-1] = "duet_prune,tops"
    assert main([*words, "--max-new-tokens", "2", "--device", "cpu", "--format", "json"]) == 0
    assert "duet_prune" in json.dumps(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shares", "1.5"], "between 0 and 1"),
        (["--dominant", "0"], "dominant is 0"),
        (["--dominant", "1000"], "asked for 1000 tokens"),
        (["--shares", "half"], "give numbers"),
        (["--stage1", "none", "--dominant", "4"], "does nothing"),
        (["--layer", "99"], "language model has"),
        (["--format", "html"], "unknown format"),
    ],
)
def test_mistakes(world, more, message, capsys):
    words = ["oracle", "--model", random_model(), "--tasks", "pope", "--data", str(world / "data"), "--limit", "1"]
    assert main([*words, *more]) == 2
    assert message in capsys.readouterr().err
