"""Methods and switches of the engine tests, each with the plan that the plain restatement follows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import duet
from duet.budget import Budget
from tests.plain_duet import Plan
from tests.tiny_llava import BUDGET, ENDING, fill_salient

ONE = Plan(dominant=6, contextual=3, width=2)
TWO = Plan(layers=(2, 4), ratios=(0.6, 0.25))
BOTH = replace(ONE, layers=TWO.layers, ratios=TWO.ratios)
FIRST, SECOND = BUDGET.only(1), BUDGET.only(2)


@dataclass(frozen=True)
class Case:
    """One configuration.

    Attributes:
        method, budget, switches: of `duet.attach`.
        plan: the same for `tests.plain_duet`.
    """

    method: str
    budget: Budget | None
    plan: Plan
    switches: dict[str, Any] = field(default_factory=dict)

    def attach(self, model: Any) -> Any:
        """Attach to a model, and return it."""
        return duet.attach(model, self.method, self.budget, **self.switches)


SALIENT = {"salient": fill_salient}
CASES = {
    "none": Case("none", None, Plan()),
    "visionzip": Case("visionzip", FIRST, replace(ONE, merge="visionzip")),
    "visionzip_c": Case("visionzip_c", FIRST, replace(ONE, merge="released")),
    "pyramiddrop": Case("pyramiddrop", SECOND, replace(TWO, voters="last")),
    "pyramiddrop_all": Case("pyramiddrop_all", SECOND, replace(TWO, voters="all")),
    "pyramiddrop_s": Case("pyramiddrop_s", SECOND, replace(TWO, voters="salient"), SALIENT),
    "duet_vanilla": Case("duet_vanilla", BUDGET, replace(BOTH, merge="visionzip", voters="last")),
    "duet_c": Case("duet_c", BUDGET, replace(BOTH, merge="released", voters="last")),
    "duet_c_all": Case("duet_c_all", BUDGET, replace(BOTH, merge="released", voters="all")),
    "duet_c_s": Case("duet_c_s", BUDGET, replace(BOTH, merge="released", voters="salient"), SALIENT),
    "duet": Case("duet", ENDING, replace(BOTH, merge="released", voters="all", ratios=(0.6, 0.0))),
    "paper": Case(
        "duet",
        BUDGET,
        replace(BOTH, merge="paper", score="column_mean", voters="all"),
        {"contextual_merge": "paper", "score": "column_mean"},
    ),
    "column_mean": Case(
        "visionzip_c", FIRST, replace(ONE, merge="released", score="column_mean"), {"score": "column_mean"}
    ),
    "merge_visionzip": Case(
        "duet", BUDGET, replace(BOTH, merge="visionzip", voters="all"), {"contextual_merge": "visionzip"}
    ),
    "keep": Case("duet", BUDGET, replace(BOTH, merge="released", voters="all", renumber=False), {"positions": "keep"}),
    "keep_pyramiddrop": Case("pyramiddrop", SECOND, replace(TWO, voters="last", renumber=False), {"positions": "keep"}),
    "guided_by_last": Case("duet", BUDGET, replace(BOTH, merge="released", voters="last"), {"text_guidance": "last"}),
    "guided_by_attention": Case(
        "duet", BUDGET, replace(BOTH, merge="released", voters="attention"), {"text_guidance": "attention"}
    ),
}
#: Shapes beyond the paper's: late entry, frozen layers, absolute counts, an exit without any ranking.
SHAPES = {
    "late": Case("duet", replace(BUDGET, entry=1), replace(BOTH, merge="released", voters="all", entry=1)),
    "late_keep": Case(
        "duet",
        Budget(dominant=6, contextual=3, cluster_width=2, layers=(3, 4), keep=(4, 1), entry=2),
        replace(ONE, merge="released", voters="all", layers=(3, 4), keep=(4, 1), renumber=False, entry=2),
        {"positions": "keep"},
    ),
    "frozen": Case("duet", replace(BUDGET, frozen=3), replace(BOTH, merge="released", voters="all", frozen=(3, 4, 5))),
    "frozen_in_some": Case(
        "pyramiddrop",
        replace(SECOND, frozen=(0, 2, 5)),
        replace(TWO, voters="last", renumber=False, frozen=(0, 2, 5)),
        {"positions": "keep"},
    ),
    "late_and_frozen": Case(
        "visionzip_c", replace(FIRST, entry=0.5, frozen=4), replace(ONE, merge="released", entry=3, frozen=(4, 5))
    ),
    "late_and_gone": Case(
        "visionzip",
        replace(FIRST, layers=(4,), ratios=(0.0,), entry=2, frozen=(3,)),
        replace(ONE, merge="visionzip", layers=(4,), ratios=(0.0,), entry=2, frozen=(3,)),
    ),
    "none_but_frozen": Case("none", Budget(frozen=(0, 3, 4, 5)), Plan(frozen=(0, 3, 4, 5))),
    "none_but_late": Case(
        "none", Budget(layers=(5,), ratios=(0.0,), entry=2), Plan(layers=(5,), ratios=(0.0,), entry=2)
    ),
}
CASES |= SHAPES
#: Enough to cover both stages, both numberings, and a prompt that ends up without visual tokens.
FEW = ("none", "visionzip_c", "pyramiddrop", "duet_c_s", "duet", "keep", "late", "late_keep", "frozen", "none_but_late")
