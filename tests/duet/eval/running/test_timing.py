"""Milliseconds per question: medians that a disturbed batch does not move."""

from __future__ import annotations

from duet.eval.running.timing import summary


def batch(rows: int, prefill: float, decode: float, steps: int) -> dict:
    return {"batch": 0, "rows": rows, "prefill_ms": prefill, "decode_ms": decode, "steps": steps}


def test_median_weighs_batches_by_their_questions():
    found = summary([batch(4, 40.0, 8.0, 2), batch(4, 4000.0, 800.0, 2), batch(5, 60.0, 10.0, 0)])
    assert found["prefill_ms"] == 12.0
    assert found["prefill_ms_mean"] == 4100.0 / 13
    assert found["decode_ms_per_token"] == 202.0  # median of 4 and 400; the batch without steps says nothing


def test_nothing_measured():
    assert set(summary([]).values()) == {None}
