"""Milliseconds per question from `timing.jsonl`, the first token separate from the others.

    {"batch": 0, "rows": 32, "prefill_ms": 181.2, "decode_ms": 40.8, "steps": 3}

The prefill lasts from the prompt to the first token of every row of the batch (tower, projector, compression, language
model), decoding from there to the last token. Reading pictures is in neither, and the warm-up batch is not in the file.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Line = dict[str, Any]
NAMES = ("prefill_ms", "prefill_ms_mean", "decode_ms", "decode_ms_per_token")


def summary(batches: Sequence[Line]) -> dict[str, float | None]:
    """Milliseconds per question; None if nothing was measured.

    Returns:
        `prefill_ms` and `decode_ms`: medians over the batches, weighted by their questions, so moments in which
        the machine was busy do not count; `prefill_ms_mean`; `decode_ms_per_token`: median over
        the batches of the time of a step, all rows together.
    """
    if not batches:
        return dict.fromkeys(NAMES)
    steps = [batch["decode_ms"] / batch["steps"] for batch in batches if batch["steps"]]
    mean = sum(batch["prefill_ms"] for batch in batches) / sum(batch["rows"] for batch in batches)
    values = (_median(batches, "prefill_ms"), mean, _median(batches, "decode_ms"))
    return dict(zip(NAMES, (*values, statistics.median(steps) if steps else None), strict=True))


def _median(batches: Sequence[Line], name: str) -> float:
    return statistics.median_low(batch[name] / batch["rows"] for batch in batches for _ in range(batch["rows"]))
