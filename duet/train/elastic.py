"""Elastic training: every step runs under a budget drawn from the recipe's choices, so one checkpoint learns them all.

    compression:
      method: duet
      budget: [none, {average: [12, 40]}, mini_ninth, {dominant: 40, contextual: 5, layers: [2], ratios: [0.0]}]

A choice is `none` (all tokens), a name, an average, fields of a `duet.Budget`, or a range of averages, from which a
whole number is drawn, both ends included. All choices are equally likely; one that is listed twice is twice as likely.
The draw depends on seed and step alone: it is the same on all ranks and after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from duet.budget import Backbone, Budget, find_row
from duet.config import ConfigError, build
from duet.engine.attach import attach_compression

if TYPE_CHECKING:
    from duet.engine.call import Compression

#: Limit of an average, above any model's.
MOST_TOKENS = 10**6
#: The choice that keeps all tokens.
ALL = "none"


@dataclass(frozen=True)
class Between:
    """A range of averages: whole numbers of tokens per layer, both ends included."""

    least: int
    most: int


#: One choice; None keeps all tokens.
Choice = Budget | Between | str | float | None


def read_choices(given: Any) -> list[Choice]:
    """The choices of `compression.budget`: one, or those of a list.

    Raises:
        UserError: no choice, an unknown name, or numbers out of range.
    """
    if not isinstance(given, (list, tuple)):
        return [_read(given)]
    if not given:
        raise ConfigError("an empty list of budgets; give at least one")
    return [None if choice in (None, ALL) else _read(choice) for choice in given]


def _read(given: Any) -> Choice:
    if isinstance(given, str):
        find_row(given)
        return given
    if isinstance(given, dict):
        return _range(given["average"]) if list(given) == ["average"] else build(Budget, given, "numbers")
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise ConfigError(f"{given!r} is no budget; give a name, an average, fields of a budget, or {ALL} in a list")
    if not 0 < given <= MOST_TOKENS:
        raise ConfigError(f"an average of {given} tokens; expected more than 0, at most {MOST_TOKENS}")
    return given


def _range(given: Any) -> Between:
    ends = list(given) if isinstance(given, (list, tuple)) else []
    whole = len(ends) == 2 and all(type(end) is int for end in ends)
    if not whole or not 1 <= ends[0] <= ends[1] <= MOST_TOKENS:
        raise ConfigError(f"average: {given!r}; a range has two whole numbers of tokens, the smaller one first")
    return Between(*ends)


class ElasticBudget(TrainerCallback):
    """Attaches the drawn budget before every step, and the last choice after it, for the held-out answers.

    Args:
        model: the model, compression attached or not.
        choices: from `read_choices`.
        make: builds the parts for a budget: `duet.attach`, then `attached(model).compression`.
        seed: of the draws.

    Attributes:
        show: called with the share of visual tokens that a layer sees on average, whenever it changes.
    """

    show: Callable[[float], None] | None = None

    def __init__(
        self,
        model: Any,
        choices: Sequence[Choice],
        make: Callable[[Budget | str | float], Compression],
        seed: int,
    ) -> None:
        self.model = model
        self.choices = list(choices)
        self.make = make
        self.seed = seed
        self.backbone = Backbone.from_config(model.config)
        self.made: dict[str, Compression] = {}
        for choice in self.choices:  # an impossible one is an error now, not at the step that draws it
            for end in (choice.least, choice.most) if isinstance(choice, Between) else (choice,):
                if end is not None:
                    self._parts(end)

    def draw(self, step: int) -> Budget | str | float | None:
        """The budget of a step, counted from 0."""
        random = Random(f"{self.seed}/{step}")
        choice = random.choice(self.choices)
        return random.randint(choice.least, choice.most) if isinstance(choice, Between) else choice

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach this step's budget."""
        self._attach(self.draw(state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Attach the last choice."""
        last = self.choices[-1]
        self._attach(last.least if isinstance(last, Between) else last)

    def _attach(self, budget: Budget | str | float | None) -> None:
        parts = self._parts(budget)
        attach_compression(self.model, parts)
        if self.show is not None:
            self.show(parts.budget.average(self.backbone) / self.backbone.full)

    def _parts(self, budget: Budget | str | float | None) -> Compression:
        name = ALL if budget is None else repr(budget)
        if budget is None:
            any_other = next(iter(self.made.values()))
            self.made[name] = replace(any_other, method=ALL, reducer=None, pruner=None, budget=Budget(), layers=())
        elif name not in self.made:
            self.made[name] = self.make(budget)
        return self.made[name]
