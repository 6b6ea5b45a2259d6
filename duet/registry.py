"""`duet.attach`: the only place where methods, backbones and budgets are combined."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from duet.errors import UserError
from duet.families import FAMILIES, Family, find_family, imported
from duet.method_table import Method, find_method
from duet.switches import Switches, build_stages, build_vision, is_proportional, positions_of, sort_switches

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from duet.budget import Budget
    from duet.checkpoints.setting import Setting
    from duet.engine.call import Compression

log = logging.getLogger("duet.registry")
#: Attached if neither the caller nor the checkpoint says what.
DEFAULT = "duet"


def attach(
    model: nn.Module,
    method: str | None = None,
    budget: Budget | str | float | None = None,
    *,
    tokenizer: Any = None,
    salient: Callable[[Tensor, Tensor], Tensor] | None = None,
    companion: str | None = None,
    **switches: Any,
) -> nn.Module:
    """Attach compression to a loaded Hugging Face model.

    Args:
        model: the model, or a wrapper around it (peft).
        method: one of `duet.methods()`, or a composition of two (`stage1:scope+stage2:duet_prune`). None: the one that
            the checkpoint was trained with, with its switches and, if none is given, its budget (`duet_config.json`,
            see `duet.checkpoints.setting`); `duet` if it was trained with none.
        budget: a `duet.Budget`, the name of one (`duet.budgets()`), or the average of visual tokens per layer.
        tokenizer: the model's; needed by methods that read the question.
        salient: your own finder of salient tokens, `(input_ids [T], text [T] bool) -> [T] bool`.
        companion: CLIP checkpoint that the model's tower comes from, for methods that need its text tower.
        switches: fields of `duet.switches.Switches`, e.g. `positions="keep"`, and the method's own, e.g. `alpha=2.0`.

    Returns:
        The same model.

    Raises:
        UserError: a name is unknown, the model is not supported, the budget does not fit the method and model, or the
            backbone cannot provide what the method needs.
    """
    from duet.engine.attach import attach_compression

    target, compression, setting = compress(
        model, method, budget, tokenizer=tokenizer, salient=salient, companion=companion, **switches
    )
    attach_compression(target, compression, setting)
    return model


def compress(
    model: nn.Module,
    method: str | None = None,
    budget: Budget | str | float | None = None,
    *,
    tokenizer: Any = None,
    salient: Callable[[Tensor, Tensor], Tensor] | None = None,
    companion: str | None = None,
    **switches: Any,
) -> tuple[Any, Compression, Setting | None]:
    """What `attach` would attach, without attaching it; takes its arguments and raises its errors.

    Returns:
        The supported model inside a wrapper, the parts, and what `save_pretrained` writes (None for a method that keeps
        all tokens).
    """
    from duet.checkpoints.setting import Setting, find_setting

    target, family = find_family(model)
    trained = find_setting(getattr(target.config, "name_or_path", ""))
    if method is None and trained is not None:
        companion = companion or trained.companion
        method, budget, switches = as_trained(trained, budget, salient, switches, str(target.config.name_or_path))
    if not isinstance(method, (str, type(None))):
        raise UserError(f"method is {method!r}; give a name of duet.methods()")
    parts = find_method(method or DEFAULT)
    chosen, options = sort_switches(parts, switches)
    compression = _build(target, family, parts, budget, chosen, options)
    compression = _with_readers(compression, target, tokenizer, salient, chosen.salient_rule, companion)
    if not parts.stages and compression.budget == _all_tokens():
        return target, compression, None
    given = {name: value for name, value in switches.items() if value is not None and name != "ratio_base"}
    given["positions"] = "renumber" if compression.renumber else "keep"
    unstored = () if salient is None else ("salient",)
    seen = () if trained is None else trained.trained
    return target, compression, Setting(parts.name, compression.budget, given, companion, unstored, seen)


def as_trained(
    setting: Setting, budget: Budget | str | float | None, salient: Any, switches: dict[str, Any], source: str
) -> tuple[str, Budget | str | float, dict[str, Any]]:
    """Method, budget and switches of a checkpoint's setting, where the caller gives none; says so in one line.

    Raises:
        UserError: the setting needs a function that no file can hold.
    """
    if salient is None and "salient" in setting.not_stored:
        raise UserError(
            f"{source} was saved with a finder of salient words of its own, which duet_config.json cannot hold: pass "
            "salient=..., or method= and budget="
        )
    trained_method(setting, source)
    if budget is not None and switches.get("ratio_base") is None and not hasattr(budget, "ratio_base"):
        switches = {"ratio_base": setting.budget.ratio_base if setting.budget.layers else None, **switches}
    given = {name: value for name, value in switches.items() if value is not None}
    found = setting.budget if budget is None else budget
    log.warning(
        "%s: attached %s as it was trained (duet_config.json): %s; method='none' gives all tokens",
        source,
        setting.method,
        described(found),
    )
    return setting.method, found, {**setting.switches, **given}


def trained_method(setting: Setting, source: str) -> Method:
    """The method of a checkpoint's setting.

    Raises:
        UserError: it is not known here.
    """
    try:
        return find_method(setting.method)
    except UserError as error:
        raise UserError(
            f"{source} was trained with method {setting.method} (duet_config.json), which is not known here: load its "
            "plugin (--plugin FILE.py), or give another method"
        ) from error


def described(budget: Budget | str | float) -> str:
    """A budget in a few words."""
    if isinstance(budget, (str, int, float)):
        return f"budget {budget}"
    stage1 = f"{budget.dominant} dominant + {budget.contextual} contextual tokens"
    stage2 = ", ".join(
        f"{ratio:g} after {layer}" for layer, ratio in zip(budget.layers, budget.ratios or budget.keep, strict=True)
    )
    others = [f"entering after {budget.entry}"] if budget.entry else []
    others += [f"frozen {budget.frozen}"] if budget.frozen is not None else []
    others += [f"away in layers {', '.join(map(str, budget.away))}"] if budget.away else []
    found = ([stage1] if budget.dominant is not None else []) + ([stage2] if stage2 else []) + others
    return "; ".join(found) or "all tokens"


def _build(
    model: Any,
    family: Family,
    method: Method,
    budget: Budget | str | float | None,
    switches: Switches,
    options: dict[str, Any],
) -> Compression:
    from duet.budget import Backbone
    from duet.budget.resolve import resolve_budget
    from duet.engine.call import Compression
    from duet.engine.proportional import check_kernel

    vision, decoder = build_vision(family, method, switches), imported(family.decoder)()
    vision.body(model)  # refuse an unsupported tower before its sizes are read
    reducer, pruner = build_stages(method, switches, vision.scores, options)
    proportional = is_proportional(method, switches)
    if proportional:
        check_kernel(decoder.text_model(model).config)
    _check_needs(method, family, vision, reducer)
    backbone = Backbone.from_config(model.config)
    numbers = resolve_budget(budget, method.schedule, backbone, method=method.name, ratio_base=switches.ratio_base)
    released = "keep" if "keep" in (family.positions, method.positions) else method.positions or family.positions
    positions = positions_of(switches, released)
    depth = backbone.decoder.layers
    return Compression(
        method=method.name,
        vision=vision,
        decoder=decoder,
        reducer=reducer,
        pruner=pruner,
        budget=numbers,
        layers=numbers.layers_for(depth),
        absences=numbers.absences(depth),
        frozen=numbers.frozen_for(depth),
        renumber=positions == "renumber",
        causal_ranking=family.causal_ranking,
        proportional=proportional,
    )


def backbones_of(method: Method) -> list[str]:
    """Names of the families that provide what a method needs."""
    return [family.name for family in FAMILIES if not missing_needs(method, family)]


def missing_needs(method: Method, family: Family) -> list[str]:
    """Needs of a method that a family cannot meet."""
    if method.reducer is None:
        return []
    vision = imported(family.vision)()
    score = {"score": vision.scores[0]} if "score" in method.reducer.options() else {}
    return _missing(method.reducer.build(**score), vision)


def _missing(reducer: Any, vision: Any) -> list[str]:
    """Needs of a reducer that neither the vision side nor the engine meets."""
    from duet.engine.vision import PROJECTED, TEXT_NEEDS

    possible = vision.provides | {PROJECTED, "text_tokens"}
    return sorted(reducer.needs - possible - (TEXT_NEEDS if "cls_attention" in vision.provides else set()))


def _check_needs(method: Method, family: Family, vision: Any, reducer: Any) -> None:
    """Check that the backbone provides what stage 1 needs.

    Raises:
        UserError: it does not; the message names both.
    """
    missing = [] if reducer is None else _missing(reducer, vision)
    if missing:
        raise UserError(
            f"method {method.name} needs {', '.join(missing)} from the vision tower, which {family.name} cannot "
            f"provide; it provides {', '.join(sorted(vision.provides))}"
        )


def _with_readers(
    compression: Compression, model: Any, tokenizer: Any, salient: Any, rule: str | None, companion: str | None
) -> Compression:
    """Add the readers of the question that the parts need."""
    wants_salient = compression.pruner is not None and "salient" in compression.pruner.needs
    if not wants_salient and (salient is not None or rule is not None):
        raise UserError("salient and salient_rule do nothing without text_guidance='salient'")
    if salient is not None and rule is not None:
        raise UserError("salient_rule does nothing beside a finder of your own (salient): give one of them")
    needs = compression.reducer.needs if compression.reducer is not None else frozenset()
    reads = bool(needs & {"text_tokens", "clip_text_embeds"})
    joins = bool(needs & {"clip_text_embeds", "clip_image_embeds"})
    if companion is not None and not joins:
        raise UserError(f"method {compression.method} needs no CLIP text tower; companion would do nothing")
    if tokenizer is not None and not hasattr(tokenizer, "get_vocab"):
        raise UserError(f"tokenizer is a {type(tokenizer).__name__}; give processor.tokenizer")
    if tokenizer is None and (reads or (wants_salient and salient is None)):
        raise UserError(
            f"method {compression.method} reads the question: pass tokenizer=processor.tokenizer to duet.attach"
        )
    if wants_salient and salient is None:
        from duet.text.salient import salient_finder

        salient = salient_finder(tokenizer, rule=rule or "stopwords")
    found: dict[str, Any] = {"salient": salient} if wants_salient else {}
    if reads:
        from duet.text.question import QuestionReader

        reader = QuestionReader(tokenizer)
        found |= {"read_words": reader.word_ids, "read_question": reader.text}
    if joins:
        from duet.checkpoints.companion import load_companion

        found["companion"] = load_companion(companion, model.config.vision_config)
    return replace(compression, **found)


def _all_tokens() -> Budget:
    from duet.budget import Budget

    return Budget()
