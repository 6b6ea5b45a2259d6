"""`find_schedule` on every family's tiny model, and what is written of it."""

from __future__ import annotations

import json
import statistics
from typing import Any

import pytest

from duet.budget import Backbone, resolve_budget
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.method_table import find_method
from duet.schedule.choose import WORSE_THAN_FLAT
from duet.schedule.draw import draw_curves
from duet.schedule.files import curve_facts, row_of, write_budget, write_json
from duet.schedule.run import Found, Prompt, find_schedule
from tests.families import FAMILIES, Family


def prompts_of(family: Family, model: Any) -> list[Prompt]:
    """Each prompt with a picture twice, in two strata."""
    from duet.families import find_family, imported

    vision = imported(find_family(model)[1].vision)()
    found = []
    for row in family.prompts:
        inputs = family.collate([row])
        if any("pixel" in name for name in inputs):
            visual = int(vision.placeholders(vision.body(model), inputs["input_ids"]).sum())
            found += [Prompt(stratum, inputs, visual, 1) for stratum in ("one", "other")]
    return found


def found_on(name: str, method: str = "duet", **options: Any) -> tuple[Found, Any]:
    family = FAMILIES[name]
    model = family.build()
    for key in ("eos_token_id", "bos_token_id"):
        setattr(model.generation_config, key, None)
    prompts = prompts_of(family, model)
    return find_schedule(model, prompts, options.pop("average", 5), method=method, **options), model


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gets_a_shape(name, tmp_path):
    wanted = 20 if name == "videollava" else 5  # eight frames, a token of each at least
    found, _ = found_on(name, average=wanted)
    assert found.chosen in found.trials and not found.chosen.refused
    assert [trial.name for trial in found.trials[:2]] == ["flat", "duet_safe"]
    assert 1 < found.prefills < 40 and found.considered > 20
    average = found.chosen.budget.average(found.backbone)
    assert average == pytest.approx(wanted, abs=0.6 if wanted == 5 else 2.1)
    for trial in found.trials:
        low, high = trial.ends
        assert low <= trial.mean <= high or trial.mean == pytest.approx(low, rel=0.2)
        assert bool(trial.refused) == (trial.worst > WORSE_THAN_FLAT * found.trials[0].worst)
    if found.backbone.reads_late:
        assert found.chosen.budget.tokens_per_layer(found.backbone)[-1] > 0
    facts = curve_facts(found.curves, found.trials, found.backbone)
    assert set(facts["curves"]) == {
        f"{what}, {tokens} tokens" for what in ("withdrawn", "frozen", "entering") for tokens in ("all", "few")
    } | {"quartered, all tokens", "away, all tokens"}
    told = {"average": wanted, "measure": "entering", "method": "duet", "model": name, "samples": "4"}
    row = row_of(found.chosen, found.backbone, **told)
    file = tmp_path / "found.yaml"
    write_budget(file, "found", str(tmp_path), row)
    schedule = find_method("duet").schedule
    assert resolve_budget(str(file), schedule, found.backbone) == found.chosen.budget
    write_json(tmp_path / "found.json", facts)
    figure = draw_curves(json.loads((tmp_path / "found.json").read_text()), found.chosen.name, "title")
    assert len(figure.axes) == 3
    assert [len(axes.lines) for axes in figure.axes[:2]] == [5 * 3, 3 * 3]


@pytest.mark.parametrize("method", ["visionzip", "pyramiddrop"])
def test_methods_with_one_stage(method):
    found, _ = found_on("llava", method)
    assert all(bool(trial.budget.stage1) == (method == "visionzip") for trial in found.trials)
    assert method == "pyramiddrop" or not any(trial.budget.ranks for trial in found.trials)


def test_a_token_that_counts_as_often_as_it_has_patches():
    """The full model, which merges nothing, is the reference all the same."""
    plain, _ = found_on("llava", "duet_cover")
    found, model = found_on("llava", "duet_cover", attention="proportional")
    assert attached(model).compression.proportional
    assert found.trials[0].mean != plain.trials[0].mean and found.trials[0].mean > 0


def test_an_average_by_operations_considers_freezing():
    found, _ = found_on("llava", measure="flops", average=6)
    assert found.chosen.budget.average(found.backbone, "flops") == pytest.approx(6, abs=0.6)


def test_a_stratum_that_needs_no_picture_is_left_out(monkeypatch):
    """Its answers are the same without one; where all are, nothing can be said."""
    monkeypatch.setattr("duet.schedule.curves.LEAST_CEILING", 1e9)
    with pytest.raises(UserError, match="no stratum of the samples needs a picture: answers change by"):
        found_on("llava")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "none"}, "keeps all tokens"),
        ({"average": 500}, "an average of 500 visual tokens; a prompt of the samples has 16"),
    ],
)
def test_what_cannot_be_scheduled(options, message):
    with pytest.raises(UserError, match=message):
        found_on("llava", **options)


def test_sizes_that_vary_are_those_of_a_usual_prompt():
    found, model = found_on("qwen2_5_vl")
    assert Backbone.from_config(model.config).patches is None
    sizes = [prompt.visual for prompt in prompts_of(FAMILIES["qwen2_5_vl"], model)]
    assert found.backbone.full == round(statistics.median(sizes))
