"""A budget per picture: the mean over samples is the wanted one, and the attached model keeps what was foretold."""

from __future__ import annotations

import json
from statistics import fmean

import pytest
import torch

import duet
from duet.cli.main import main
from duet.config import parse_value
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.schedule.spread import find_enough
from playground.mini.schedule_samples import main as write_samples
from tests.duet.schedule.test_run import prompts_of
from tests.families import FAMILIES
from tests.small_world import random_model


@pytest.mark.parametrize(
    ("name", "attention"),
    [("llava", "plain"), ("llava", "proportional"), ("llava_next", "plain"), ("qwen2_5_vl", "plain")],
)
@torch.no_grad()
def test_the_mean_is_the_wanted_one_and_pictures_differ(name, attention):
    model = FAMILIES[name].build()
    prompts = prompts_of(FAMILIES[name], model)
    found = find_enough(model, prompts, 3, shape="duet", most=2.5, attention=attention)
    assert len(found.averages) == len(found.entered) == len(prompts)
    assert found.mean == pytest.approx(3, abs=1.5)  # a few pictures, and whole tokens
    assert found.mean == fmean(found.averages)
    reducer = attached(model).compression.reducer
    assert reducer.enough == found.enough < 1
    depth = len(model.model.language_model.layers)
    for prompt, entered, average in zip(prompts, found.entered, found.averages, strict=True):
        with duet.record(model) as trace:
            model(**prompt.inputs)
        assert trace.entered == [entered]
        assert fmean(found.budget.counts_per_layer(entered, prompt.pictures, depth)) == average


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    write_samples(["--output", str(folder), "--count", "3"])
    return folder / "samples.jsonl"


def test_the_command_prints_what_commands_take(samples, capsys):
    words = ["budget", "spread", "--model", random_model(), "--average", "22.2", "--samples", str(samples)]
    assert main([*words, "--json", "--shape", "duet_safe", "--device", "cpu"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["average"] == pytest.approx(22.2, abs=0.6)
    assert len(set(facts["entered"])) > 1 and max(facts["entered"]) <= facts["budget"]["dominant"]
    assert main([*words, "--shape", "duet_safe"]) == 0
    out = capsys.readouterr().out
    assert f"--option enough={facts['enough']:g} --budget" in out
    budget = out.rsplit("--budget ", 1)[1].strip().strip("'")
    pictures = sorted((samples.parent / "images").glob("*.png"))
    picked = ["ask", str(pictures[0]), "What?", "--model", random_model(), "--max-new-tokens", "1", "--json"]
    fields = parse_value(budget, "budget")
    numbers = [
        f"--{name}={','.join(map(str, value)) if isinstance(value, list) else value}" for name, value in fields.items()
    ]
    assert main([*picked, "--method", "duet_cover", "--option", f"enough={facts['enough']:g}", *numbers]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["average"] in facts["averages"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "scope"], "method scope has no switch `enough`"),
        (["--method", "none"], "method none has no switch `enough`"),
        (["--most", "1"], "most is 1; it must be above 1"),
        (["--option", "enough=0.5"], "enough is what is looked for"),
    ],
)
def test_mistakes_are_told_before_the_model_is_loaded(samples, words, message, capsys, monkeypatch):
    monkeypatch.setattr("duet.cli.spread.load_model", lambda *_: pytest.fail("loaded"))
    assert main(["budget", "spread", "--average", "22", "--samples", str(samples), *words]) != 0
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("average", "message"), [(30, "at most .* per layer, less than 30"), (0.1, "at least .* per layer, more than 0.1")]
)
def test_an_average_that_the_pictures_cannot_have(average, message):
    model = FAMILIES["llava"].build()
    with pytest.raises(UserError, match=message):
        find_enough(model, prompts_of(FAMILIES["llava"], model), average)
