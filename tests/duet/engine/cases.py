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
#: Enough to cover both stages, both numberings, and a prompt that ends up without visual tokens.
FEW = ("none", "visionzip_c", "pyramiddrop", "duet_c_s", "duet", "keep")
