"""The table of methods: every part exists, compositions, methods from outside."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

import duet
from duet.baselines.scope import Scope
from duet.baselines.tops import TopsPrune
from duet.budget import Budget
from duet.budget.schedules import DUET, FLAT, PLAIN, PYRAMID
from duet.cover.cover import Cover
from duet.cover.prune import CoverPrune
from duet.edit import Edit
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.families import FAMILIES, imported
from duet.method_table import ALIASES, METHODS, find_method, register
from duet.plugins import load_entry_points, load_plugin
from tests.families import FAMILIES as FAMILY_MODELS
from tests.plugin import write_plugin
from tests.tiny_llava import tiny_llava


@pytest.fixture
def own_table(monkeypatch):
    """Methods that a test registers are removed after it."""
    kept = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(kept)


@dataclass(frozen=True)
class First:
    """Keep the first patches, every `step`-th."""

    step: int = 1

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[str] = "unit"
    contextual: ClassVar[bool] = False

    def __call__(self, states, budget):
        count = sum(budget.resolve(states.features.shape[1], cls=False))
        kept = torch.arange(count).mul(self.step).expand(len(states.features), -1)
        return Edit.keep(kept, states.features.shape[1])


@pytest.mark.parametrize("name", METHODS)
def test_every_part_exists_and_says_what_the_interface_asks(name):
    method = METHODS[name]
    assert method.name == name and method.about
    assert (method.schedule is None) == (not method.stages)
    if method.schedule is not None:
        assert method.schedule.stages == method.stages
    if method.reducer is not None:
        made = method.reducer.build()
        assert isinstance(made.needs, frozenset) and made.scope in ("unit", "medium")
        assert isinstance(made.contextual, bool)
    if method.pruner is not None:
        made = method.pruner.build()
        assert isinstance(made.needs, frozenset) and made.layer in ("next", "previous") and callable(made.score)


def test_names_and_aliases():
    assert set(duet.methods()) == set(METHODS) | set(ALIASES)
    assert all(duet.methods().values())
    assert find_method("duet") is METHODS["duet_c_all"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_part_of_every_family_exists(family):
    vision, decoder = imported(family.vision)(), imported(family.decoder)()
    assert vision.provides and set(vision.scores) <= {"cls_row", "column_mean"}
    assert decoder.text_models
    assert callable(imported(family.loader)) and isinstance(imported(family.asking), type)


@pytest.mark.parametrize(
    ("name", "stages", "schedule"),
    [
        ("stage1:visionzip", (1,), FLAT),
        ("stage2:duet_prune", (2,), PYRAMID),
        ("stage1:visionzip_c+stage2:pyramiddrop", (1, 2), DUET),
        ("stage1:duet_merge+stage2:duet_prune", (1, 2), DUET),
    ],
)
def test_compositions(name, stages, schedule):
    method = find_method(name)
    assert (method.name, method.stages, method.schedule) == (name, stages, schedule)


def test_a_composition_equals_the_method_of_its_parts():
    model = tiny_llava()
    budget = Budget(8, 2, layers=(2, 4), ratios=(0.5, 0.0))
    duet.attach(model, "duet", budget)
    one = attached(model).compression
    duet.attach(model, "stage1:visionzip_c+stage2:duet_prune", budget)
    other = attached(model).compression
    assert (one.reducer, one.pruner, one.budget, one.renumber) == (
        other.reducer,
        other.pruner,
        other.budget,
        other.renumber,
    )


def test_options_in_the_name():
    method = find_method("duet_cover[saliency=1,merge=cluster,votes=2]")
    assert method.name == "duet_cover[saliency=1,merge=cluster,votes=2]"
    assert method.reducer.build() == Cover(saliency=1.0, merge="cluster")
    assert method.pruner.build() == CoverPrune(votes=2.0)
    assert (method.schedule, method.positions) == (METHODS["duet_cover"].schedule, "keep")
    both = find_method("stage1:scope[alpha=0]+stage2:tops[lambda_=0.5]")
    assert both.reducer.build() == Scope(alpha=0.0) and both.pruner.build() == TopsPrune(lambda_=0.5)
    assert find_method("stage1:cover[words=1]+stage2:duet_prune").positions == "keep"
    model = duet.attach(tiny_llava(), "scope[alpha=2]", Budget(dominant=4))
    assert attached(model).compression.reducer == Scope(alpha=2.0)
    duet.attach(model, "scope[alpha=2]", Budget(dominant=4), alpha=3.0)
    assert attached(model).compression.reducer == Scope(alpha=3.0)
    with pytest.raises(UserError, match="score"):
        duet.attach(tiny_llava(), "scope[score=neither]", Budget(dominant=4))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scope[beta=1]", r"unknown option 'beta' of method scope; choose one of score, alpha"),
        ("scope[alpha=much]", r"alpha: expected a number"),
        ("scope[alpha]", r"write options as NAME\[option=value"),
        ("scope[alpha=1", r"write options as NAME\[option=value"),
        ("scope[alpha=1,alpha=2]", r"each once"),
        ("none[alpha=1]", r"unknown option 'alpha'"),
        ("skope[alpha=1]", r"unknown method 'skope'; did you mean scope"),
        ("stage1:scope[alpha=much]", r"alpha: expected a number"),
    ],
)
def test_options_that_are_none(name, message):
    with pytest.raises(UserError, match=message):
        find_method(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stage1:nothing", r"no method 'nothing' with a stage 1; "),
        ("stage1:pyramiddrop", r"no method 'pyramiddrop' with a stage 1"),
        ("stage1:visionzip+stage1:visionzip_c", r"write stage1:NAME, stage2:NAME or"),
        ("stage1:visionzip+pyramiddrop", r"write stage1:NAME, stage2:NAME or"),
        ("stage3:visionzip", r"unknown method"),
    ],
)
def test_compositions_that_are_none(name, message):
    with pytest.raises(UserError, match=message):
        find_method(name)


def test_a_method_from_outside(own_table):
    register("first", reducer=First, about="the first patches")
    method = find_method("first")
    assert (method.stages, method.schedule) == ((1,), PLAIN)
    model = tiny_llava()
    duet.attach(model, "first", 4, step=2)
    parts = attached(model).compression
    assert parts.reducer.part == First(2) and sum(parts.budget.stage1.resolve(99, cls=False)) == 4
    register("first", reducer=First, about="the first patches")  # the same again, as when a plugin is read twice
    with pytest.raises(UserError, match="method first already exists"):
        register("first", reducer=First, about="another")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "two words", "reducer": First}, "use letters, digits and underscores"),
        ({"name": "nothing"}, "has no part"),
        ({"name": "duet", "reducer": First}, "method duet already exists"),
        ({"name": "visionzip", "reducer": First}, "method visionzip already exists"),
        ({"name": "first", "reducer": First, "positions": "shift"}, "choose renumber, keep"),
    ],
)
def test_registrations_that_are_refused(own_table, arguments, message):
    with pytest.raises(UserError, match=message):
        register(**arguments)


@pytest.fixture
def package(own_table, tmp_path, monkeypatch):
    """An installed package with an entry point of the group."""
    metadata = tmp_path / "my_methods-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[duet.methods]\nmine = my_methods:add\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_methods", raising=False)
    load_entry_points.cache_clear()
    yield tmp_path / "my_methods.py"
    load_entry_points.cache_clear()


def test_a_package_brings_methods(package):
    lines = ("import duet", "from duet.visionzip.zip_merge import VisionZip", "def add():")
    package.write_text("\n".join((*lines, "    duet.register('mine', reducer=VisionZip)\n")))
    assert find_method("mine").stages == (1,) and "mine" in duet.methods()


def test_a_package_that_fails_is_named_every_time(package):
    package.write_text("def add():\n    raise RuntimeError('no weights')\n")
    for _ in range(2):
        with pytest.raises(UserError, match="mine of my_methods:add cannot be registered: no weights"):
            find_method("visionzip")


def test_a_plugin_is_a_file(own_table, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import duet\nfrom duet.visionzip.zip_merge import VisionZip\nduet.register('mine', reducer=VisionZip)\n"
    )
    load_plugin(str(plugin))
    assert find_method("mine").stages == (1,)
    plugin.write_text("1 / 0\n")
    with pytest.raises(UserError, match=r"mine\.py: ZeroDivisionError"):
        load_plugin(str(plugin))
    with pytest.raises(UserError, match="no such file"):
        load_plugin(str(tmp_path / "other.py"))


@pytest.mark.parametrize("name", FAMILY_MODELS)
def test_the_example_of_the_docs_runs_on_every_family(own_table, tmp_path, name):
    load_plugin(str(write_plugin(tmp_path)))
    family = FAMILY_MODELS[name]
    model = family.build()
    budget = replace(family.budget, contextual=0)
    duet.attach(model, "stage1:largest_norm+stage2:duet_prune", budget)
    with torch.no_grad(), duet.record(model) as trace:
        model(**family.collate([family.prompts[0]], "left", labels=False))
    picked = trace.reductions[0][0]
    assert picked.kept.tolist() == picked.kept.sort().values.tolist() and (picked.kept >= 0).all()
    assert trace.stages
