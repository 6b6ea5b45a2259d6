"""The oracle and the rules as a table: rank correlation, answers that stay the same, and divergence at every share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from duet.analysis.oracle import DROP, ELIMINATION, Asked, Place
from duet.report.bootstrap import DRAWS, ENDS
from duet.report.render import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING = "–"


def oracle_table(place: Place, asked: Sequence[Asked], entered: int, group: int) -> Table:
    """One row per oracle and rule, best first at the smallest share.

    Args:
        place: where tokens were dropped.
        asked: measured prompts.
        entered: tokens of the first prompt that entered the language model.
        group: tokens tried together.
    """
    draws = np.random.default_rng(0).integers(len(asked), size=(DRAWS, len(asked)))
    names = list(dict.fromkeys(name for one in asked for name in one.choices))
    same = {
        share: {name: np.array([100.0 * one.choices[name].same[share] for one in asked]) for name in names}
        for share in place.shares
    }
    loss = {
        share: {name: np.array([one.choices[name].loss[share] for one in asked]) for name in names}
        for share in place.shares
    }
    last = place.shares[-1]
    names.sort(key=lambda name: (-same[last][name].mean(), loss[last][name].mean()))
    rows: list[list[str]] = []
    records: list[dict[str, Any]] = []
    for name in names:
        row = [name, _correlation(asked, name)]
        record: dict[str, Any] = {"rule": name, "correlation": _mean_correlation(asked, name)}
        for share in place.shares:
            best = _best(share, same, loss)
            gap = same[share][best] - same[share][name]
            low, high = np.percentile(gap[draws].mean(1), ENDS)
            short = "" if name == best else f"{gap.mean():+.1f} [{low:+.1f}, {high:+.1f}]"
            row += [f"{same[share][name].mean():.1f}", short, f"{loss[share][name].mean():.3f}"]
            record |= {
                f"same@{share:g}": float(same[share][name].mean()),
                f"gap@{share:g}": [float(gap.mean()), float(low), float(high)],
                f"loss@{share:g}": float(loss[share][name].mean()),
            }
        rows.append(row)
        records.append(record)
    header = ["Rule", "Rank correlation"]
    for share in place.shares:
        left = place.left(share, entered)
        header += [f"Same answer, {left} left, %", f"oracle - rule [95 %], {left} left", f"KL, {left} left"]
    title = f"What a better rank could give: stage 1 {place.stage1}, {entered} tokens, drop after layer {place.layer}"
    title += "" if place.attention == "plain" else f", {place.attention} attention"
    return Table(title, header, rows, records, list(_notes(asked, group)))


def _best(share: float, same: dict[float, dict[str, np.ndarray]], loss: dict[float, dict[str, np.ndarray]]) -> str:
    """The better oracle."""
    return max((DROP, ELIMINATION), key=lambda name: (same[share][name].mean(), -loss[share][name].mean()))


def _correlation(asked: Sequence[Asked], name: str) -> str:
    value = _mean_correlation(asked, name)
    return NOTHING if value is None else f"{value:+.2f}"


def _mean_correlation(asked: Sequence[Asked], name: str) -> float | None:
    found = [one.correlation[name] for one in asked if name in one.correlation]
    return float(np.mean(found)) if found else None


def _notes(asked: Sequence[Asked], group: int) -> Iterator[str]:
    yield (
        f"{len(asked)} prompts, no labels: the reference is the full model's own greedy answer. Same answer: every "
        "token of it is still the likeliest. KL: of the reduced model from the full one, in nats per token."
    )
    tried = "each token" if group == 1 else f"{group} neighbouring tokens at a time"
    yield (
        f"Oracles try {tried} and know that answer, so the distance to them is an upper bound. Intervals: paired "
        "bootstrap over prompts. Rank correlation: Spearman's, of a rule's scores with the loss of each token."
    )
    yield "Nothing dropped: all tokens that entered stay, which is the most that a rule without the answer can aim at."
