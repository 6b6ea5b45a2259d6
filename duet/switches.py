"""The switches of `duet.attach`, and what they make of a method: its two stages and its vision side."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from duet.errors import UserError, suggest
from duet.families import Family, imported
from duet.method_table import CLUSTERS, GUIDED, ZIP, Method, Part

#: Stage-1 scores of all towers.
SCORES = ("cls_row", "column_mean")


@dataclass(frozen=True)
class Switches:
    """Choices where paper and released code differ. None keeps the method's own.

    Attributes:
        contextual_merge: `released`, `paper` (Algorithm 1) or `visionzip`.
        score: stage-1 score, `cls_row` (released) or `column_mean` (paper); a tower without CLS has only the latter.
        text_guidance: `last`, `all`, `salient` or `attention`.
        positions: `renumber` or `keep`; default as in the backbone's released code.
        ratio_base: replaces the budget's: stage-2 ratios are shares of the tokens that `entered` the language model, or
            `compounding` as in the released Qwen2.5-VL code, see `Budget.drops`.
        salient_rule: `stopwords` or `pos` (spaCy, the released rule).
        newlines: `keep` or `drop` (released) the newline tokens between the rows of a reduced picture, for families
            that have them (`VisionSide.switches`).
        attention: `proportional` to let a merged token count as often as it has patches (`duet.engine.proportional`);
            `plain` (default) as in all releases.
    """

    contextual_merge: str | None = None
    score: str | None = None
    text_guidance: str | None = None
    positions: str | None = None
    ratio_base: str | None = None
    salient_rule: str | None = None
    newlines: str | None = None
    attention: str | None = None


def sort_switches(method: Method, given: dict[str, Any]) -> tuple[Switches, dict[str, Any]]:
    """Split switches into `Switches` and the method's own.

    Raises:
        UserError: unknown switch.
    """
    known = [entry.name for entry in fields(Switches)]
    own = [name for name in own_options(method) if name not in known]
    for name in given:
        if name not in known and name not in own:
            raise UserError(f"unknown switch {name!r} of method {method.name}; {suggest(name, [*known, *own])}")
    chosen = Switches(**{name: value for name, value in given.items() if name in known})
    return chosen, {name: value for name, value in given.items() if name in own and value is not None}


def own_options(method: Method) -> list[str]:
    """Names of the method's own switches."""
    parts = [part for part in (method.reducer, method.pruner) if part is not None]
    return [name for part in parts for name in part.options()]


def check_switches(method: Method, given: dict[str, Any]) -> None:
    """What can be said of a method's switches without a model.

    Args:
        given: as `attach` takes them.

    Raises:
        UserError: an unknown switch or choice, or one that the method has no use for.
    """
    switches, options = sort_switches(method, given)
    build_stages(method, switches, SCORES, options)
    is_proportional(method, switches)
    positions_of(switches, "keep")


def positions_of(switches: Switches, released: str) -> str:
    """`renumber` or `keep`; what was released unless the switch is set.

    Raises:
        UserError: another choice.
    """
    return _check(switches.positions or released, "positions", ("renumber", "keep"))


def is_proportional(method: Method, switches: Switches) -> bool:
    """Whether merged tokens count as often as they have patches.

    Raises:
        UserError: the method merges nothing before the language model.
    """
    chosen = _check(switches.attention or "plain", "attention", ("plain", "proportional")) == "proportional"
    if chosen and method.reducer is None:
        raise UserError(f"method {method.name} has no stage 1, so no patches are merged; attention would do nothing")
    return chosen


def build_vision(family: Family, method: Method, switches: Switches) -> Any:
    """The vision side, with its family's own switches set."""
    side = imported(family.vision)
    own = {name: choices for name, choices in side.switches.items() if getattr(switches, name) is not None}
    if switches.newlines is not None and "newlines" not in side.switches:
        raise UserError("newlines is a switch of families that have newline tokens; this model has none")
    if own and method.reducer is None:
        raise UserError(f"method {method.name} has no stage 1; {', '.join(own)} would do nothing")
    return side(**{name: _check(getattr(switches, name), name, choices) for name, choices in own.items()})


def build_stages(
    method: Method, switches: Switches, scores: tuple[str, ...], options: dict[str, Any]
) -> tuple[Any, Any]:
    """Stage 1 and stage 2 of a method, None where it has none; `scores` are those of the tower, the usual one first.

    Raises:
        UserError: a switch of a stage that the method does not have, or an unknown choice.
    """
    for stage, part, names in (
        (1, method.reducer, ("contextual_merge", "score")),
        (2, method.pruner, ("text_guidance", "ratio_base")),
    ):
        for name in names:
            if getattr(switches, name) is not None and part is None:
                raise UserError(f"method {method.name} has no stage {stage}; {name} would do nothing")
    reducer, pruner = method.reducer, method.pruner
    if switches.contextual_merge is not None:
        if reducer not in (ZIP, CLUSTERS):
            raise UserError(f"contextual_merge is a switch of VisionZip and DUET; method {method.name} has none")
        merge = _check(switches.contextual_merge, "contextual_merge", ("released", "paper", "visionzip"))
        reducer = ZIP if merge == "visionzip" else Part(CLUSTERS.make, {"contextual_merge": merge})
    if switches.text_guidance is not None:
        if pruner not in GUIDED.values():
            raise UserError(f"text_guidance is a switch of PyramidDrop and DUET; method {method.name} has none")
        pruner = GUIDED[_check(switches.text_guidance, "text_guidance", tuple(GUIDED))]
    if reducer is not None and "score" in reducer.options():
        score = _check(switches.score or reducer.arguments.get("score", scores[0]), "score", scores)
        options = {**options, "score": score}
    elif switches.score is not None:
        raise UserError(f"score does nothing: stage 1 of method {method.name} ranks by no attention score")
    return _construct(reducer, options, method), _construct(pruner, options, method)


def _construct(part: Part | None, options: dict[str, Any], method: Method) -> Any:
    if part is None:
        return None
    try:
        return part.build(**{name: value for name, value in options.items() if name in part.options()})
    except UserError as error:
        told = str(error).startswith("method ")
        raise UserError(str(error) if told else f"method {method.name}: {error}") from error


def _check(value: str, name: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise UserError(f"{name} is {value!r}; choose {', '.join(choices)}")
    return value
