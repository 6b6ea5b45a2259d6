"""What stage 1 does in a served model: read from the model's config (`--hf-overrides`) or from the environment.

--hf-overrides '{"architectures": ["DuetLlavaForConditionalGeneration"],
                 "duet": {"method": "scope", "budget": {"dominant": 64}}}'
DUET_METHOD=scope DUET_BUDGET=64 DUET_SWITCHES='{"alpha": 2.0}'
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from duet.budget import Backbone, Budget
from duet.budget.counts import Stage1
from duet.budget.resolve import resolve_budget
from duet.errors import UserError, suggest
from duet.families import Family, model_types
from duet.method_table import Method, find_method
from duet.switches import build_stages, build_vision, sort_switches

#: `model_type` of the supported configs.
SUPPORTED = ("llava", "llava_next", "qwen2_5_vl")
#: What a tower does not see; projected features are made here.
OF_THE_QUESTION = frozenset({"text_tokens", "clip_text_embeds", "clip_image_embeds"})
PROJECTED = "projected"


@dataclass(frozen=True)
class Plan:
    """Stage 1 of one model.

    Attributes:
        method: its name, for messages.
        reducer: chooses the tokens (`duet.interfaces.VisionReducer`).
        stage1: counts per picture, crop or frame.
        vision: the family's vision side, for its placement and switches.
        keeps_positions: survivors keep their position ids (M-RoPE); else the prompt is numbered one by one.
        cls: whether the tower has a CLS token.
    """

    method: str
    reducer: Any
    stage1: Stage1
    vision: Any
    keeps_positions: bool
    cls: bool

    def count(self, sizes: Sequence[int]) -> int:
        """Visual tokens left of a picture or video whose units (crops, frames) have these many patches."""
        return sum(min(sum(self.stage1.resolve(size, self.cls)), size) for size in sizes)

    def tower_needs(self) -> frozenset[str]:
        """What the tower must compute besides features."""
        return self.reducer.needs - {PROJECTED}


def read_plan(config: Any) -> Plan:
    """The plan of a model.

    Args:
        config: its transformers config, perhaps with an entry `duet` from `--hf-overrides`.

    Raises:
        UserError: no method, an unknown name or value, or something that vLLM cannot do; the message says what instead.
    """
    if config.model_type not in SUPPORTED:
        raise UserError(f"model_type is {config.model_type!r}; duet-vllm serves {', '.join(SUPPORTED)}")
    family = model_types()[config.model_type]
    name, given, options = _settings(getattr(config, "duet", None))
    method = find_method(name)
    _refuse_stages(method)
    switches, own = sort_switches(method, options)
    vision = build_vision(family, method, switches)
    reducer, _ = build_stages(method, switches, vision.scores, own)
    _check_needs(method, family, vision, reducer)
    if config.model_type == "llava_next" and getattr(reducer, "tiles", None) == "released":
        raise UserError(
            f"method {method.name} keeps fewer tokens of some pictures with tiles (tiles=released), but vLLM needs to "
            "know how many before it sees the picture: set tiles=fixed"
        )
    if getattr(reducer, "enough", 1) < 1:
        raise UserError(f"method {method.name} with enough below 1 stops early on some pictures; set enough=1")
    backbone = Backbone.from_config(config)
    budget = resolve_budget(given, method.schedule, backbone, method=method.name)
    assert budget.stage1 is not None
    counts = Budget(budget.dominant, budget.contextual, budget.cluster_width)
    if budget != counts:
        raise UserError(
            "the budget treats layers of the language model differently, but vLLM gives all of them the same tokens: "
            f"use its counts alone, {counts}, or serve it with `duet serve`"
        )
    stage1 = replace(budget.stage1, capped=vision.capped)
    if not vision.capped:
        _check_smaller(stage1, backbone)
    keeps = _keeps_positions(method, family, switches.positions)
    return Plan(method.name, reducer, stage1, vision, keeps, backbone.cls)


def _settings(given: Any) -> tuple[str, Any, dict[str, Any]]:
    """Method, budget and switches from an entry of the config, else from the environment."""
    if given is None:
        switches = _read_json("DUET_SWITCHES", os.environ.get("DUET_SWITCHES") or "{}")
        given = {"method": os.environ.get("DUET_METHOD"), "budget": os.environ.get("DUET_BUDGET"), **switches}
    if not isinstance(given, Mapping):
        raise UserError(f"duet in --hf-overrides is {given!r}; give an object with method and budget")
    rest = dict(given)
    method, budget = rest.pop("method", None), rest.pop("budget", None)
    if not method:
        raise UserError('no method: set DUET_METHOD, or "duet": {"method": ...} in --hf-overrides')
    return str(method), parse_budget(budget), rest


def parse_budget(given: Any) -> Budget | str | float | None:
    """A budget from a setting: a name, an average, or the fields of a `Budget` (an object, or its JSON).

    Raises:
        UserError: unknown fields or broken JSON.
    """
    if isinstance(given, str) and given.lstrip().startswith("{"):
        given = _read_json("budget", given)
    if isinstance(given, Mapping):
        known = [entry.name for entry in fields(Budget)]
        for name in given:
            if name not in known:
                raise UserError(f"unknown entry {name!r} in budget; {suggest(name, known)}")
        return Budget(**given)
    if isinstance(given, str):
        try:
            return float(given)
        except ValueError:
            return given or None
    return given


def _read_json(name: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{name} is {text}; give a JSON object")
    return found


def _refuse_stages(method: Method) -> None:
    if method.stages == ():
        raise UserError(f"method {method.name} keeps all tokens: leave DUET_METHOD out and serve the stock model")
    if method.pruner is not None:
        alone = "" if method.reducer is None else f"serve its stage 1 alone (stage1:{method.name}, budget.only(1)), or "
        raise UserError(
            f"method {method.name} drops tokens between layers (stage 2), but vLLM gives every layer the same tokens: "
            f"{alone}serve it with `duet serve`"
        )


def _check_needs(method: Method, family: Family, vision: Any, reducer: Any) -> None:
    if reducer.needs & OF_THE_QUESTION:
        raise UserError(
            f"method {method.name} reads the question, but vLLM encodes a picture without it and reuses the result "
            "for other questions; serve it with `duet serve`"
        )
    missing = sorted(reducer.needs - vision.provides - {PROJECTED})
    if missing:
        raise UserError(
            f"method {method.name} needs {', '.join(missing)} from the vision tower, which {family.name} cannot provide"
        )


def _check_smaller(stage1: Stage1, backbone: Backbone) -> None:
    kept = sum(stage1.resolve(backbone.known_patches, backbone.cls))
    if kept > backbone.known_patches:
        raise UserError(f"the budget keeps {kept} tokens of {backbone.known_patches}: there is nothing to reduce")


def _keeps_positions(method: Method, family: Family, given: str | None) -> bool:
    if given not in (None, "renumber", "keep"):
        raise UserError(f"positions is {given!r}; choose renumber, keep")
    released = "keep" if "keep" in (family.positions, method.positions) else "renumber"
    keeps = (given or released) == "keep"
    if keeps and family.positions != "keep":
        why = "" if given else f" (method {method.name} keeps them as released)"
        raise UserError(
            f"positions=keep{why}: vLLM numbers the tokens of a {family.name} prompt one after another; "
            "set positions=renumber"
        )
    return keeps
