"""What a training costs: operations against the paper's Table 6, and the ledger's sums."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from duet.budget import Backbone, Budget, find_backbone
from duet.budget.resolve import resolve_budget
from duet.engine.attachment import attached
from duet.method_table import find_method
from duet.train.ledger import Ledger
from duet.train.tally import Passes, Tally, row_flops
from tests.families import FAMILIES

LLAVA = find_backbone("llava15")
CHECKPOINTED = Passes(decoder=4, projector=4, tower=1)


def flops(tokens: int | None, text: int) -> int:
    method = find_method("duet_c")
    budget = (
        Budget() if tokens is None else resolve_budget(f"llava15_{tokens}", method.schedule, LLAVA, method="duet_c")
    )
    return row_flops(LLAVA, budget, text, 576, 20, CHECKPOINTED)


@pytest.mark.parametrize(("text", "saved"), [(300, (44, 51, 58)), (900, (26, 31, 35))])
def test_operations_predict_the_savings_of_the_guide(text: int, saved: tuple[int, ...]) -> None:
    """docs/training.md: -44 / -51 / -58 % at 300 other tokens; the paper's numbers are those of 900."""
    found = [100 * (1 - flops(tokens, text) / flops(None, text)) for tokens in (192, 128, 64)]
    assert found == pytest.approx(saved, abs=1.5)


def test_a_row_of_seven_billion_is_forty_odd_teraflops() -> None:
    assert flops(None, 300) / 1e12 == pytest.approx(47.5, rel=0.05)


def test_rows_without_pictures_cost_no_tower() -> None:
    alone = row_flops(LLAVA, Budget(), 100, 0, 10, Passes(3, 3, 3))
    assert alone < row_flops(LLAVA, Budget(), 100, 576, 10, Passes(3, 3, 1)) / 4


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_batches_are_counted(name: str) -> None:
    family = FAMILIES[name]
    model = family.attach(family.build())

    config = model.config
    marks = [each for each in (config.image_token_id, getattr(config, "video_token_id", None)) if each is not None]
    tally = Tally(Backbone.from_config(config), Passes.of(model, False), marks)
    batch = family.collate(family.rows, side="right", labels=True)
    tally.add(batch, attached(model).compression.budget, stand_ins=1)
    own, rows = tally.own, family.rows[:-1]
    assert own["rows"] == len(rows) and own["stand_ins"] == 1
    assert own["text_tokens"] + own["visual_tokens"] == sum(len(row.ids) for row in rows)
    assert own["labels"] == sum(int((row.labels != -100).sum()) for row in rows)
    assert 0 < own["visual_seen"] <= own["visual_tokens"] and own["flops"] > 0
    assert own["padding"] == sum(batch["input_ids"].shape[1] - len(row.ids) for row in rows)
    assert torch.is_tensor(batch["labels"])


def test_sessions_of_a_ledger_add_up(tmp_path: Path) -> None:
    for first, last in ((0, 10), (6, 20)):
        ledger = Ledger(tmp_path / "ledger.json", "duet", processes=8, longest=2048, rows_per_step=128)
        tally = Tally(None, Passes(3, 3, 1), [])
        tally.everyone["rows"] = 128.0 * (last - first)
        tally.seconds["saving"] = 1.0
        ledger.start(first)
        ledger.write(last, tally, 100.0 + last)
    found = json.loads((tmp_path / "ledger.json").read_text())
    assert [session["last_step"] for session in found["sessions"]] == [10, 20]
    assert found["total"]["steps"] == 24 and found["total"]["rows"] == 128 * 24
    assert found["total"]["peak_memory_mb"] == 120.0
    assert found["total"]["tokens_as_printed"] == 24 * 128 * 2048
    assert found["total"]["gpu_hours_with_start_up"] > found["total"]["gpu_hours"]
