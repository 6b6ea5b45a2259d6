"""How many visual tokens are left at each layer: the budget of paper Sec. 3.3 and Tables 12-15, and its cost.

    Budget(dominant=170, contextual=35, layers=(16, 24), ratios=(0.5, 0.0)).average("llava15")     # 128.0
    Budget.solve(average=128, backbone="llava15")                                                  # the same budget
    resolve_budget("llava15_128", FLAT, "llava15")                                                 # for VisionZip

The average is the number of visual tokens entering a layer, averaged over the layers of the language model.
"""

from __future__ import annotations

from duet.budget.backbones import BACKBONES, Backbone, Decoder, Tower, find_backbone
from duet.budget.cost import Flops
from duet.budget.counts import RATIO_BASES, Budget, Stage1
from duet.budget.names import Row, budgets, find_row
from duet.budget.resolve import resolve_budget
from duet.budget.schedules import DUET, FLAT, PLAIN, PYRAMID, Schedule

__all__ = [
    "BACKBONES",
    "DUET",
    "FLAT",
    "PLAIN",
    "PYRAMID",
    "RATIO_BASES",
    "Backbone",
    "Budget",
    "Decoder",
    "Flops",
    "Row",
    "Schedule",
    "Stage1",
    "Tower",
    "budgets",
    "find_backbone",
    "find_row",
    "resolve_budget",
]
