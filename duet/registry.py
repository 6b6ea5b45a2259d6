"""Names -> parts, imported when they are used. The only place that puts methods, adapters and budgets together."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from duet.errors import UserError, suggest

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from duet.budget import Budget
    from duet.interfaces import Asking, ModelAdapter


@dataclass(frozen=True)
class Part:
    """A class by name, and the arguments that make it one of the paper's variants."""

    path: str
    arguments: dict[str, str] = field(default_factory=dict)

    def build(self, **switches: str | None) -> Any:
        """Import and construct; switches that are None keep the variant's own value."""
        module, name = self.path.split(":")
        chosen = {key: value for key, value in switches.items() if value is not None}
        return getattr(import_module(module), name)(**{**self.arguments, **chosen})


_ZIP = Part("visionzip.zip_merge:VisionZip")
_CLUSTERS = Part("visionzip.duet_merge:DuetMerge")
_LAST = Part("pyramiddrop.pyramiddrop:PyramidDrop")


def _guided(text_guidance: str) -> Part:
    return Part("pyramiddrop.duet_prune:DuetPrune", {"text_guidance": text_guidance})


@dataclass(frozen=True)
class Method:
    """A row of the paper's tables: stage 1, stage 2, and where the paper shows it."""

    reducer: Part | None
    pruner: Part | None
    about: str

    @property
    def stages(self) -> tuple[int, ...]:
        """Which stages it has: `(1,)`, `(2,)`, `(1, 2)` or `()`."""
        return tuple(number for number, part in ((1, self.reducer), (2, self.pruner)) if part is not None)


METHODS: dict[str, Method] = {
    "none": Method(None, None, "all visual tokens (the tables' first row)"),
    "visionzip": Method(_ZIP, None, "VisionZip: dominant tokens, all others merged"),
    "visionzip_c": Method(_CLUSTERS, None, "VisionZip with DUET's local clusters (Table 7, VZ (C))"),
    "pyramiddrop": Method(None, _LAST, "PyramidDrop: ranked by the last text token"),
    "pyramiddrop_all": Method(None, _guided("all"), "PyramidDrop ranked by all text tokens (Table 11)"),
    "pyramiddrop_s": Method(None, _guided("salient"), "PyramidDrop ranked by salient text tokens (Table 11)"),
    "duet_vanilla": Method(_ZIP, _LAST, "VisionZip + PyramidDrop (Table 7, DV (V))"),
    "duet_c": Method(_CLUSTERS, _LAST, "local clusters + last text token (Tables 1, 8: (C))"),
    "duet_c_all": Method(_CLUSTERS, _guided("all"), "local clusters + all text tokens (Table 8: (C+all))"),
    "duet_c_s": Method(_CLUSTERS, _guided("salient"), "local clusters + salient text tokens (Table 8: (C+S))"),
}
#: What the released scripts really run: the salient list never reaches their decoder.
ALIASES = {"duet": "duet_c_all"}

ADAPTERS = {
    "LlavaForConditionalGeneration": "llava.adapter:LlavaAdapter",
    "LlavaNextForConditionalGeneration": "llava.next_adapter:LlavaNextAdapter",
    "VideoLlavaForConditionalGeneration": "videollava.adapter:VideoLlavaAdapter",
    "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl.adapter:QwenAdapter",
    "Qwen2VLForConditionalGeneration": "qwen2_5_vl.adapter:QwenAdapter",
}
#: `model_type` of a config -> how that family is asked.
ASKING = {
    "llava": "llava.asking:LlavaAsking",
    "llava_next": "llava.next_asking:LlavaNextAsking",
    "video_llava": "videollava.asking:VideoLlavaAsking",
    "qwen2_5_vl": "qwen2_5_vl.asking:QwenAsking",
    "qwen2_vl": "qwen2_5_vl.asking:QwenAsking",
}
#: `model_type` of a checkpoint's config.json -> function that loads it.
LOADERS = {
    "llava": "llava.model.builder:load",
    "llava_next": "llava.model.builder:load",
    "qwen2_5_vl": "qwen2_5_vl.loading:load",
    "qwen2_vl": "qwen2_5_vl.loading:load",
    "video_llava": "videollava.model.builder:load",
}
#: Entry that tells an original layout, whatever its `model_type` -> function that loads it; the first one counts.
ORIGINAL_LOADERS = {"mm_video_tower": LOADERS["video_llava"], "mm_vision_tower": LOADERS["llava"]}


@dataclass(frozen=True)
class Switches:
    """Where paper and released code differ. None keeps what the method's name says.

    Attributes:
        contextual_merge: `released`, `paper` (Algorithm 1) or `visionzip`.
        score: stage-1 score, `cls_row` (released) or `column_mean` (paper); a tower without CLS has only the latter.
        text_guidance: `last`, `all`, `salient` or `attention`.
        positions: `renumber` or `keep`; default is what the backbone's released code does.
        ratio_base: in place of the budget's: stage-2 ratios are shares of what `entered` the language model, or
            `compounding` as in the released Qwen2.5-VL code, see `Budget.drops`.
        salient_rule: `stopwords` or `pos` (spaCy, the released rule).
        newlines: `keep` or `drop` (released) the newline tokens between the rows of a reduced picture; of families that
            have them (`ModelAdapter.switches`).
    """

    contextual_merge: str | None = None
    score: str | None = None
    text_guidance: str | None = None
    positions: str | None = None
    ratio_base: str | None = None
    salient_rule: str | None = None
    newlines: str | None = None


def methods() -> dict[str, str]:
    """Names of all methods, with one line about each."""
    lines = {name: method.about for name, method in METHODS.items()}
    return {**lines, **{alias: f"the same as {name}" for alias, name in ALIASES.items()}}


def find_method(name: str) -> tuple[str, Method]:
    """Canonical name and parts.

    Raises:
        UserError: unknown name; the nearest are named.
    """
    name = ALIASES.get(name, name)
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}; {suggest(name, methods())}")
    return name, METHODS[name]


def attach(
    model: nn.Module,
    method: str = "duet",
    budget: Budget | str | None = None,
    *,
    tokenizer: Any = None,
    salient: Callable[[Tensor, Tensor], Tensor] | None = None,
    **switches: str | None,
) -> nn.Module:
    """Attach compression to a loaded Hugging Face model.

    Args:
        model: the model, or a wrapper around it (peft).
        method: one of `duet.methods()`.
        budget: a `duet.Budget`, or the name of one (`duet.budgets()`).
        tokenizer: of the model; needed by salient guidance only.
        salient: own finder of salient tokens, `(input_ids [T], text [T] bool) -> [T] bool`.
        switches: fields of `Switches`, e.g. `positions="keep"`.

    Returns:
        The same model.

    Raises:
        UserError: a name is unknown, the model is not supported, or the budget does not fit method and model.
    """
    from duet.engine.attach import attach_compression
    from duet.engine.call import Compression

    known = [entry.name for entry in fields(Switches)]
    for name in switches:
        if name not in known:
            raise UserError(f"unknown switch {name!r}; {suggest(name, known)}")
    chosen = Switches(**switches)
    name, parts = find_method(method)
    target, adapter = find_adapter(model)
    adapter = _switch_adapter(adapter, name, parts, chosen)
    reducer, pruner = _build_stages(name, parts, chosen, adapter)
    depth = target.config.get_text_config().num_hidden_layers
    numbers = _find_budget(name, parts, budget, chosen, depth)
    compression = Compression(
        method=name,
        adapter=adapter,
        reducer=reducer,
        pruner=pruner,
        budget=numbers,
        layers=numbers.layers_for(depth),
        renumber=_check(chosen.positions or adapter.positions, "positions", ("renumber", "keep")) == "renumber",
        salient=_find_salient(pruner, tokenizer, salient, chosen.salient_rule),
    )
    attach_compression(target, compression)
    return model


def load(
    path: str,
    method: str | None = None,
    budget: Budget | str | None = None,
    *,
    salient: Callable[[Tensor, Tensor], Tensor] | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """Load a checkpoint and attach compression, where a method is named.

    Args:
        path: local folder or hub id.
        method, budget, salient: see `attach`.
        options: fields of `Switches` go to `attach`; the others (`dtype`, `device_map`, `attn_implementation`,
            `revision`, ...) to the family's loader (`LOADERS`), see `duet.checkpoints.options`.

    Returns:
        model and processor.

    Raises:
        UserError: an option or a name is unknown, or compression is described but no method given.
        CheckpointError: the checkpoint is incomplete, damaged or of another family; the message lists what.
    """
    names = {entry.name for entry in fields(Switches)}
    switches = {name: value for name, value in options.items() if name in names}
    loading = {name: value for name, value in options.items() if name not in names}
    described = {"budget": budget, "salient": salient, **switches}
    idle = [name for name, value in described.items() if value is not None]
    if method is not None:
        find_method(method)
    elif idle:
        raise UserError(f"without a method {', '.join(idle)} would do nothing: give one of duet.methods()")
    module, function = _find_loader(path, loading.get("revision")).split(":")
    model, processor = getattr(import_module(module), function)(path, **loading)
    if method is not None:
        attach(model, method, budget, tokenizer=processor.tokenizer, salient=salient, **switches)
    return model, processor


def _find_loader(path: str, revision: str | None) -> str:
    from duet.checkpoints.files import CheckpointError, resolve_folder
    from duet.checkpoints.sanity import read_config

    settings = read_config(resolve_folder(path, revision=revision, weights=False))
    original = {} if "vision_config" in settings else settings
    for entry, loader in ORIGINAL_LOADERS.items():
        if original.get(entry):
            return loader
    family = settings.get("model_type")
    if family not in LOADERS:
        raise CheckpointError(
            f"{path}: model_type in config.json is {family!r}; supported are {', '.join(LOADERS)} in the Hugging Face "
            f"layout, and the original layout of those whose config.json has {' or '.join(ORIGINAL_LOADERS)}"
        )
    return LOADERS[family]


def find_adapter(model: nn.Module) -> tuple[Any, ModelAdapter]:
    """The supported model inside a (wrapped) model, and its adapter.

    Raises:
        UserError: no module of a supported class.
    """
    for module in model.modules():
        for base in type(module).__mro__:
            if base.__name__ in ADAPTERS:
                return module, Part(ADAPTERS[base.__name__]).build()
    raise UserError(f"{type(model).__name__} is not supported; supported are {', '.join(ADAPTERS)}")


def _switch_adapter(adapter: ModelAdapter, name: str, parts: Method, switches: Switches) -> ModelAdapter:
    """The adapter with the switches set that only some families have."""
    if switches.newlines is None:
        return adapter
    if "newlines" not in adapter.switches:
        raise UserError("newlines is a switch of families that have newline tokens; this model has none")
    if parts.reducer is None:
        raise UserError(f"method {name} has no stage 1; newlines would do nothing")
    choice = _check(switches.newlines, "newlines", adapter.switches["newlines"])
    return type(adapter)(newlines=choice)  # type: ignore[call-arg]


def find_asking(model: nn.Module, processor: Any) -> Asking:
    """How this model is asked.

    Raises:
        UserError: no family whose prompts are known.
    """
    config: Any = model.config
    if config.model_type not in ASKING:
        raise UserError(f"questions can be asked to models of type {', '.join(ASKING)}, not {config.model_type}")
    module, name = ASKING[config.model_type].split(":")
    return getattr(import_module(module), name)(config, processor)


def _build_stages(name: str, parts: Method, switches: Switches, adapter: ModelAdapter) -> tuple[Any, Any]:
    for switch in ("contextual_merge", "score"):
        if getattr(switches, switch) is not None and parts.reducer is None:
            raise UserError(f"method {name} has no stage 1; {switch} would do nothing")
    for switch in ("text_guidance", "ratio_base"):
        if getattr(switches, switch) is not None and parts.pruner is None:
            raise UserError(f"method {name} has no stage 2; {switch} would do nothing")
    reducer, pruner = parts.reducer, parts.pruner
    merge = switches.contextual_merge
    if reducer is not None and merge is not None:
        _check(merge, "contextual_merge", ("released", "paper", "visionzip"))
        reducer = _ZIP if merge == "visionzip" else Part(_CLUSTERS.path, {"contextual_merge": merge})
    if switches.text_guidance is not None:
        _check(switches.text_guidance, "text_guidance", ("last", "all", "salient", "attention"))
        pruner = _LAST if switches.text_guidance == "last" else _guided(switches.text_guidance)
    score = _check(switches.score or adapter.scores[0], "score", adapter.scores)
    return (reducer.build(score=score) if reducer else None), (pruner.build() if pruner else None)


def _find_budget(name: str, parts: Method, budget: Budget | str | None, switches: Switches, depth: int) -> Budget:
    from duet.budget import Budget, check_depth, find_row, named

    if budget is None and parts.stages:
        raise UserError(f"method {name} needs a budget: a duet.Budget or one of duet.budgets()")
    if isinstance(budget, str):
        find_row(budget)  # an unknown name is an error for every method
        numbers = named(budget, stages=parts.stages, ratio_base=switches.ratio_base) if parts.stages else Budget()
        check_depth(budget, numbers, depth)
    else:
        numbers = Budget() if budget is None else budget
    if not isinstance(numbers, Budget):
        raise UserError(f"budget is {budget!r}; give a duet.Budget or one of duet.budgets()")
    if parts.reducer and numbers.stage1 is None:
        raise UserError(f"method {name} has a stage 1, but the budget says nothing about it: give dominant, contextual")
    if parts.pruner and not numbers.layers:
        raise UserError(f"method {name} has a stage 2, but the budget says nothing about it: give layers, ratios")
    if not parts.reducer and numbers.stage1 is not None:
        raise UserError(f"method {name} has no stage 1; dominant, contextual would do nothing: use budget.only(2)")
    if not parts.pruner and numbers.layers:
        raise UserError(f"method {name} has no stage 2; layers {numbers.layers} would do nothing: use budget.only(1)")
    return numbers if switches.ratio_base is None else replace(numbers, ratio_base=switches.ratio_base)


def _find_salient(pruner: Any, tokenizer: Any, salient: Any, rule: str | None) -> Any:
    if pruner is None or not pruner.needs_salient:
        if salient is not None or rule is not None:
            raise UserError("salient and salient_rule do nothing without text_guidance='salient'")
        return None
    if salient is not None:
        return salient
    if tokenizer is None:
        raise UserError("salient guidance reads the question: pass tokenizer=processor.tokenizer to duet.attach")
    from duet.text.salient import salient_finder

    return salient_finder(tokenizer, rule=rule or "stopwords")


def _check(value: str, name: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise UserError(f"{name} is {value!r}; choose {', '.join(choices)}")
    return value
