"""Elastic training: every step runs under a budget drawn from the recipe's choices, so one checkpoint learns them all.

    compression:
      method: duet
      budget: [none, {average: [12, 40]}, mini_ninth, {dominant: 40, contextual: 5, layers: [2], ratios: [0.0]}]

A choice is `none` (all tokens), a name, an average, fields of a `duet.Budget`, or a range of averages, from which a
whole number is drawn, both ends included. An average or a range may have a `shape` by name or file
(`{average: [12, 40], shape: duet_safe}`) in place of the method's own. All choices are equally likely unless
`compression.weights` has a weight for each. The draw depends on seed and step alone: it is the same on all ranks and
after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from duet.budget import Budget, find_row
from duet.budget.names import find_shape
from duet.config import ConfigError, build
from duet.engine.attach import attach_compression
from duet.engine.attachment import exchange_compression

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
    shape: str | None = None


@dataclass(frozen=True)
class Shaped:
    """An average under a shape that is not the method's own, see `duet.budget.shapes`."""

    average: float
    shape: str


#: What a step runs under, if it compresses.
Drawn = Budget | Shaped | str | float
#: One choice; None keeps all tokens.
Choice = Drawn | Between | None


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
        if "shape" in given:
            return _shaped(given)
        return _range(given["average"]) if list(given) == ["average"] else build(Budget, given, "numbers")
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise ConfigError(f"{given!r} is no budget; give a name, an average, fields of a budget, or {ALL} in a list")
    if not 0 < given <= MOST_TOKENS:
        raise ConfigError(f"an average of {given} tokens; expected more than 0, at most {MOST_TOKENS}")
    return given


def _shaped(given: dict[str, Any]) -> Between | Shaped:
    shape, average = given["shape"], given.get("average")
    if set(given) != {"shape", "average"} or not isinstance(shape, str):
        raise ConfigError(
            f"{given!r}; a shape is a name or a file, and goes with an average: {{average: 64, shape: NAME}}"
        )
    find_shape(shape)
    if isinstance(average, (list, tuple)):
        return replace(_range(average), shape=shape)
    number = _read(average)
    if isinstance(number, (int, float)):
        return Shaped(number, shape)
    raise ConfigError(f"average: {average!r}; give a number of tokens, or two for a range")


def _range(given: Any) -> Between:
    ends = list(given) if isinstance(given, (list, tuple)) else []
    whole = len(ends) == 2 and all(type(end) is int for end in ends)
    if not whole or not 1 <= ends[0] <= ends[1] <= MOST_TOKENS:
        raise ConfigError(f"average: {given!r}; a range has two whole numbers of tokens, the smaller one first")
    return Between(*ends)


def check_weights(weights: Sequence[float], choices: Sequence[Choice]) -> None:
    """Check that there is a weight above 0 for every choice, or none at all.

    Raises:
        ConfigError: there is not.
    """
    if weights and len(weights) != len(choices):
        raise ConfigError(f"{len(weights)} weights for {len(choices)} budgets")
    if any(weight <= 0 for weight in weights):
        raise ConfigError(f"{list(weights)}: every weight is above 0; leave out the budget that is never drawn")


def typical(choice: Choice) -> Any:
    """A choice as `duet.eval.running.grid.find_budget` takes it; the middle of a range."""
    if not isinstance(choice, (Between, Shaped)):
        return choice
    average = choice.average if isinstance(choice, Shaped) else (choice.least + choice.most) / 2
    return average if choice.shape is None else {"average": average, "shape": choice.shape}


class ElasticBudget(TrainerCallback):
    """Runs every step under a drawn budget, and what follows a step (held-out answers) under the default.

    The default is the last choice that keeps fewer than all tokens, of a range its lower end: what `duet.load` attaches
    to the trained checkpoint, too.

    Args:
        model: the model, compression attached or not; after this the default is attached.
        choices: from `read_choices`, at least one of them not None.
        make: what `duet.registry.compress` returns for a budget; it gets `Shaped`, too.
        seed: of the draws.
        weights: of the choices; empty: all are equally likely.
    """

    def __init__(
        self,
        model: Any,
        choices: Sequence[Choice],
        make: Callable[[Any], tuple[Any, Compression, Any]],
        seed: int,
        weights: Sequence[float] = (),
    ) -> None:
        self.model = model
        self.choices = list(choices)
        self.make = make
        self.seed = seed
        self.weights = list(weights) or [1.0] * len(self.choices)
        self.made: dict[str, Compression] = {}
        some = [choice for choice in self.choices if choice is not None][-1]
        self.default: Drawn = _within(some, some.least) if isinstance(some, Between) else some
        target, parts, setting = make(self.default)
        attach_compression(target, parts, replace(setting, trained=tuple(map(self._stored, self.choices))))

    def draw(self, step: int) -> Drawn | None:
        """The budget of a step, counted from 0."""
        random = Random(f"{self.seed}/{step}")
        choice = random.choices(self.choices, self.weights)[0]
        return _within(choice, random.randint(choice.least, choice.most)) if isinstance(choice, Between) else choice

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Run this step under its budget."""
        self.use(self.draw(state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Go back to the default."""
        self.use(self.default)

    def use(self, budget: Drawn | None) -> None:
        """Run under a budget from now on; None for all tokens."""
        exchange_compression(self.model, self._parts(budget))

    def _stored(self, choice: Choice) -> dict[str, Any] | None:
        """A choice for `duet_config.json`; an impossible one is an error now, not at the step that draws it."""
        if isinstance(choice, Between):
            for end in (choice.least, choice.most):
                self._parts(_within(choice, end))
            shape = {} if choice.shape is None else {"shape": choice.shape}
            return {"average": [choice.least, choice.most], **shape}
        return None if choice is None else asdict(self._parts(choice).budget)

    def _parts(self, budget: Drawn | None) -> Compression:
        name = ALL if budget is None else repr(budget)
        if name not in self.made:
            self.made[name] = self._parts(self.default).with_all_tokens() if budget is None else self.make(budget)[1]
        return self.made[name]


def _within(choice: Between, average: int) -> Drawn:
    return average if choice.shape is None else Shaped(average, choice.shape)
