"""Which measured shape is chosen: refusals against the flat one, ties, intervals over samples."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from duet.budget import DUET, FLAT, Budget, find_backbone
from duet.schedule.choose import Judge, Trial
from duet.schedule.curves import BLIND, Curves
from duet.schedule.passes import Meter

MINI = find_backbone("mini")
FLAT_BUDGET, EARLY, LATE = Budget(11), Budget(44, layers=(2,), ratios=(0.0,)), Budget(15, layers=(6,), ratios=(0.0,))


def judge(samples: int = 40) -> Judge:
    rows = {stratum: [{BLIND: 1.0}] * samples for stratum in ("short", "long")}
    curves = Curves(("short", "long"), {"short": 1.0, "long": 1.0}, rows, 8, 1.0)
    nothing: Any = SimpleNamespace()
    told = [].append
    return Judge(None, nothing, [], curves, MINI, DUET, "duet", "entering", Budget(), Meter(MINI.decoder), told)


def trial(name: str, budget: Budget, short: float, long: float, swing: float = 0.0, samples: int = 40) -> Trial:
    """Every other sample loses `swing` more, the others that much less."""
    sides = np.where(np.arange(samples) % 2, swing, -swing)
    rows = {"short": short + sides, "long": long + sides}
    shares = {stratum: float(values.mean()) for stratum, values in rows.items()}
    mean = float(np.mean(list(shares.values())))
    return Trial(name, FLAT, budget, rows, shares, mean, (mean, mean))


def chosen(*trials: Trial) -> tuple[str, list[str]]:
    """Name of the choice, and of the refused ones."""
    one = judge()
    judged = [one._judged(each, trials[0]) for each in trials]
    return one._chosen([each for each in judged if not each.refused]).name, [
        each.name for each in judged if each.refused
    ]


def test_the_least_loss_is_chosen():
    assert chosen(trial("flat", FLAT_BUDGET, 0.5, 0.5), trial("early", EARLY, 0.2, 0.2)) == ("early", [])


def test_a_shape_whose_worst_stratum_is_worse_than_flats_is_refused():
    found = chosen(trial("flat", FLAT_BUDGET, 0.5, 0.5), trial("early", EARLY, 0.0, 0.63))
    assert found == ("flat", ["early"])
    assert chosen(trial("flat", FLAT_BUDGET, 0.5, 0.5), trial("early", EARLY, 0.0, 0.62)) == ("early", [])


def test_of_ties_the_one_with_the_picture_in_more_layers_is_taken():
    flat = trial("flat", FLAT_BUDGET, 0.9, 0.9)
    early, late = trial("early", EARLY, 0.30, 0.30, 0.1), trial("late", LATE, 0.31, 0.31, -0.1)
    assert chosen(flat, early, late)[0] == "late"
    assert chosen(flat, early, trial("late", LATE, 0.40, 0.40, -0.1))[0] == "early"


def test_intervals_are_over_samples_and_paired():
    one = judge()
    noisy, same = trial("a", EARLY, 0.5, 0.5, 0.2), trial("a", LATE, 0.5, 0.5, 0.2)
    low, high = np.percentile(one._draws(noisy.rows), (2.5, 97.5))
    wanted = 1.96 * 0.2 / np.sqrt(80)
    assert (high - low) / 2 == pytest.approx(wanted, rel=0.3)
    assert one._against(noisy, same) == (0.0, 0.0)
