"""The paper's baselines on a tiny LLaVA, attached by name, against `plain_run.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import duet
from duet.budget import Budget
from duet.engine.attachment import is_attached
from tests.duet.baselines.plain_run import Result, run
from tests.plain_duet import eager
from tests.tiny_llava import PATCHES, Row, collate, make_row, prompt_of, tiny_llava

LOGITS = {"atol": 1e-4, "rtol": 0}
ONE, SEVERAL = {2: 0.4}, {1: 0.8, 3: 0.5, 4: 0.2}


@dataclass(frozen=True)
class Case:
    """A method as attached, and its settings for the plain run."""

    method: str
    budget: Budget
    plain: dict[str, Any]
    switches: dict[str, Any] = field(default_factory=dict)

    def attach(self, model: Any) -> Any:
        return duet.attach(model, self.method, self.budget, **self.switches)

    def run(self, model: Any, row: Row, prompt: int | None = None) -> Result:
        return run(model, row, **self.plain, prompt=prompt)


def inside(method: str, drops: dict[int, float], positions: str, **switches: Any) -> Case:
    name = " ".join([method, *switches.values()])
    plain = {"pruner": name, "drops": drops, "renumber": positions == "renumber"}
    budget = Budget(layers=tuple(drops), ratios=tuple(drops.values()))
    return Case(method, budget, plain, {**switches, "positions": positions})


def before(method: str, count: int) -> Case:
    return Case(method, Budget(dominant=count), {"reducer": method, "count": count})


CASES = {
    "fastv": inside("fastv", ONE, "keep"),
    "fastv renumber": inside("fastv", SEVERAL, "renumber"),
    "fitprune": inside("fitprune", {1: 0.9, 2: 0.7, 3: 0.5, 4: 0.3, 5: 0.1}, "keep"),
    "sparsevlm": inside("sparsevlm", SEVERAL, "renumber"),
    "sparsevlm few": inside("sparsevlm", {2: 0.15}, "renumber"),
    "sparsevlm keep": inside("sparsevlm", ONE, "keep"),
    "sparsevlm 2": inside("sparsevlm", SEVERAL, "keep", version="2"),
    "dart": inside("dart", {2: 0.7}, "keep"),
    "dart again": inside("dart", SEVERAL, "renumber"),
    "hired": before("hired", 6),
    "prumerge": before("prumerge", 6),
    "prumerge_plus": before("prumerge_plus", 8),
}


@pytest.fixture(scope="module")
def tiny() -> Any:
    return tiny_llava()


@pytest.fixture(scope="module")
def plain(tiny: Any) -> Any:
    return eager(tiny)


@pytest.fixture(autouse=True)
def stock_again(tiny: Any) -> Any:
    yield
    if is_attached(tiny):
        duet.detach(tiny)


@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_row_equals_the_plain_run(tiny, plain, name, pictures):
    row = prompt_of(make_row(pictures, text=9, seed=pictures))
    wanted = CASES[name].run(plain, row)
    CASES[name].attach(tiny)
    with duet.record(tiny) as trace:
        output = tiny(**collate([row]))
    assert [stage.kept[0].tolist() for stage in trace.stages] == [sorted(kept) for kept in wanted.kept]
    assert [layer.get_seq_length() for layer in output.past_key_values.layers] == wanted.lengths
    # a merged token has the column of its centre, which may be that of a merged one of the stage before
    own = {column: at for at, column in enumerate(wanted.columns)}
    torch.testing.assert_close(output.logits[0, list(own)], wanted.logits[list(own.values())], **LOGITS)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_counts_are_those_of_the_budget(tiny, name):
    case = CASES[name]
    case.attach(tiny)
    for pictures in (1, 2):
        row = prompt_of(make_row(pictures, seed=7))
        output = tiny(**collate([row]))
        entered = pictures * (case.plain.get("count") or PATCHES)
        text = len(row.ids) - pictures * PATCHES
        left = [entered] * 6
        for boundary, share in case.plain.get("drops", {}).items():
            left[boundary:] = [int(entered * share)] * (6 - boundary)
        assert [layer.get_seq_length() for layer in output.past_key_values.layers] == [text + count for count in left]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_row_alone_equals_the_row_in_a_batch(tiny, name, side):
    rows = [prompt_of(make_row(pictures, text=text, seed=text)) for pictures, text in ((1, 4), (2, 9), (1, 7))]
    CASES[name].attach(tiny)
    together = tiny(**collate(rows, side)).logits
    for number, row in enumerate(rows):
        alone = tiny(**collate([row])).logits[0]
        own = together[number, -len(row.ids) :] if side == "left" else together[number, : len(row.ids)]
        torch.testing.assert_close(own, alone, **LOGITS)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_decoding_equals_computing_again(tiny, plain, name):
    row = prompt_of(make_row(1, text=9, seed=5))
    CASES[name].attach(tiny)
    ids = tiny.generate(**collate([row]), max_new_tokens=4, do_sample=False)[0]
    assert ids[: len(row.ids)].equal(row.ids)
    for length in range(len(row.ids), len(ids)):
        again = CASES[name].run(plain, Row(ids[:length], row.pixels, row.labels), prompt=len(row.ids))
        assert int(again.logits[-1].argmax()) == int(ids[length])


@torch.no_grad()
def test_a_prompt_of_one_word_after_the_picture(tiny):
    """One text token rates, is a pivot, and is the last token."""
    row = make_row(1, text=6)
    row = Row(row.ids[: 2 + PATCHES + 1], row.pixels, row.labels)
    for name in CASES:
        CASES[name].attach(tiny)
        assert torch.isfinite(tiny(**collate([row])).logits).all()


@pytest.mark.parametrize("name", ["fastv", "fitprune", "sparsevlm", "sparsevlm 2", "dart", "hired", "prumerge"])
def test_training_has_gradients(tiny, name):
    CASES[name].attach(tiny)
    rows = [make_row(1, text=5), make_row(2, text=8, seed=1, turns=2)]
    tiny.train()
    try:
        tiny(**collate(rows, "right", labels=True)).loss.backward()
        grad = tiny.model.multi_modal_projector.linear_1.weight.grad
        assert torch.isfinite(grad).all() and grad.abs().sum() > 0
    finally:
        tiny.zero_grad(set_to_none=True)
        tiny.eval()
