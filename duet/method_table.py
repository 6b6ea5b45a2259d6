"""The table of all methods: parts, paper, code, budget schedule, and released position ids.

A method has a stage 1, a stage 2, or both. Parts are named `module:Class` and imported on first use; the module is the
file to read. Any two parts can be combined: `stage1:scope+stage2:duet_prune`, and options set: `scope[alpha=2]`.
External methods are added by `register`, by an entry point of the group `duet.methods`, or with `--plugin FILE.py`
(docs/methods.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from duet.budget.schedules import DUET, FITPRUNE, FLAT, ONE_DROP, PLAIN, PYRAMID, SAFE, SPARSEVLM, TOPS, VSCAN, Schedule
from duet.errors import UserError, suggest
from duet.parts import Part, split_variant, with_options
from duet.plugins import load_entry_points

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Method:
    """A method of the tables.

    Attributes:
        name: canonical name.
        reducer, pruner: stage 1 and stage 2.
        about: description in one line.
        schedule: schedule of its budgets; None without stages.
        positions: released behaviour on the LLaVA family if it differs from the backbone's: `renumber` or `keep`.
        paper, code: its source; `code` says so if there is none.
        note: what readers of its numbers should know.
    """

    name: str
    reducer: Part | None
    pruner: Part | None
    about: str
    schedule: Schedule | None = None
    positions: str | None = None
    paper: str = ""
    code: str = ""
    note: str = ""

    @property
    def stages(self) -> tuple[int, ...]:
        """Its stages: `(1,)`, `(2,)`, `(1, 2)` or `()`."""
        return tuple(number for number, part in ((1, self.reducer), (2, self.pruner)) if part is not None)


def _guided(text_guidance: str) -> Part:
    return Part("duet.pyramiddrop.duet_prune:DuetPrune", {"text_guidance": text_guidance})


ZIP = Part("duet.visionzip.zip_merge:VisionZip")
CLUSTERS = Part("duet.visionzip.duet_merge:DuetMerge")
LAST = Part("duet.pyramiddrop.pyramiddrop:PyramidDrop")
GUIDED = {"last": LAST, **{rule: _guided(rule) for rule in ("all", "salient", "attention")}}

_OURS = {"paper": "DUET-VLM (arXiv 2602.18846)", "code": "AMD-AGI/DUET-VLM"}
_VISIONZIP = {"paper": "VisionZip (CVPR 2025)", "code": "dvlab-research/VisionZip"}
_PYRAMIDDROP = {"paper": "PyramidDrop (CVPR 2025)", "code": "Cooperx521/PyramidDrop"}

_TABLE = (
    Method("none", None, None, "all visual tokens (the tables' first row)"),
    Method("visionzip", ZIP, None, "dominant tokens, all others merged", FLAT, **_VISIONZIP),
    Method("visionzip_c", CLUSTERS, None, "VisionZip with DUET's local clusters (Table 7, VZ (C))", FLAT, **_OURS),
    Method("pyramiddrop", None, LAST, "ranked by the last text token", PYRAMID, **_PYRAMIDDROP),
    Method("pyramiddrop_all", None, GUIDED["all"], "ranked by all text tokens (Table 11)", PYRAMID, **_OURS),
    Method("pyramiddrop_s", None, GUIDED["salient"], "ranked by salient text tokens (Table 11)", PYRAMID, **_OURS),
    Method("duet_vanilla", ZIP, LAST, "VisionZip + PyramidDrop (Table 7, DV (V))", DUET, **_OURS),
    Method("duet_c", CLUSTERS, LAST, "local clusters + last text token (Tables 1, 8: (C))", DUET, **_OURS),
    Method("duet_c_all", CLUSTERS, GUIDED["all"], "local clusters + all text tokens (Table 8: (C+all))", DUET, **_OURS),
    Method("duet_c_s", CLUSTERS, GUIDED["salient"], "local clusters + salient text (Table 8: (C+S))", DUET, **_OURS),
)


def _before(name: str, made: str, about: str, paper: str = "", code: str = "", note: str = "") -> Method:
    """A method of `duet/baselines` with stage 1 only and without contextual tokens."""
    return Method(name, Part(f"duet.baselines.{name}:{made}"), None, about, PLAIN, paper=paper, code=code, note=note)


_CONTROL = {"paper": "control", "code": "ours"}
_BEFORE = (
    _before("random", "Random", "random patches", **_CONTROL, note="random, seeded by the picture's own features"),
    _before("uniform", "Uniform", "evenly spaced patches", **_CONTROL),
    _before("pool", "Pool", "average pooling to any count", **_CONTROL),
    _before("scope", "Scope", "coverage weighted by CLS attention", "SCOPE (NeurIPS 2025)", "kinredon/SCOPE"),
    _before("divprune", "DivPrune", "patches least similar to each other", "DivPrune (CVPR 2025)", "vbdi/divprune"),
    _before(
        "cdpruner",
        "CDPruner",
        "diversity conditioned on the question",
        "CDPruner (NeurIPS 2025)",
        "Theia-4869/CDPruner",
        "needs CLIP's text tower",
    ),
    _before(
        "vispruner", "VisPruner", "CLS attention, then no duplicates", "VisPruner (ICCV 2025)", "Theia-4869/VisPruner"
    ),
    _before("mmtok", "MMTok", "patches that cover words and picture", "MMTok (ICLR 2026)", "Ironieser/MMTok"),
    _before("holov", "HoloV", "a quota of CLS attention per strip", "HoloV (NeurIPS 2025)", "obananas/HoloV"),
    _before(
        "vidcom2",
        "VidCom2",
        "tokens least similar to their frame and video",
        "VidCom2 (EMNLP 2025)",
        "xuyang-liu16/VidCom2",
        "made for videos: tokens are spread over all frames",
    ),
    Method(
        "fastvid",
        Part("duet.baselines.fastvid:FastVID"),
        None,
        "salient tokens, and anchors that segments of frames merge into",
        PLAIN,
        positions="keep",
        paper="FastVID (NeurIPS 2025)",
        code="LunarShen/FastVID",
        note="made for videos: tokens are spread over all frames",
    ),
    _before(
        "holitom",
        "HoliTom",
        "still tokens merged over windows of frames, and salient others",
        "HoliTom (NeurIPS 2025)",
        "cokeshao/HoliTom",
        "made for videos: tokens are spread over all frames",
    ),
    Method(
        "vscan",
        Part("duet.baselines.vscan:VScan"),
        LAST,
        "windows of a shallow layer and a deep one, all others merged; last text token",
        VSCAN,
        paper="VScan (TMLR 2026)",
        code="Tencent/SelfEvolvingAgent",
    ),
    Method(
        "trio",
        Part("duet.baselines.vscan:VScan"),
        Part("duet.baselines.trio:Trio"),
        "VScan's windows; tokens that the next layer's output depends on",
        VSCAN,
        paper="TRIO (arXiv 2602.04657)",
        code="not public",
        note="built from its paper; the public repository leaves the rule out",
    ),
    Method(
        "tops",
        Part("duet.baselines.tops:Tops"),
        Part("duet.baselines.tops:TopsPrune"),
        "relevance, diversity and coverage, before and inside the language model",
        TOPS,
        paper="TOPS (arXiv 2606.27161)",
        code="not public",
        note="built from its paper; the paper's counts average 19 % more than stated",
    ),
)


def _inside(
    name: str,
    made: Part,
    about: str,
    schedule: Schedule,
    paper: str,
    code: str,
    positions: str = "keep",
    note: str = "",
) -> Method:
    """A method of `duet/baselines` with stage 2 only."""
    return Method(name, None, made, about, schedule, positions, paper, code, note)


_SPARSEVLM = "SparseVLM (ICML 2025)", "Gumpest/SparseVLMs"
_PRUMERGE = "LLaVA-PruMerge (ICCV 2025)", "42Shawn/LLaVA-PruMerge", "training-free; headlines are of fine-tuned models"
#: Baselines of the paper's tables, and DART.
_PRINTED = (
    _inside(
        "fastv",
        Part("duet.baselines.fastv:FastV"),
        "one drop, ranked by the last text token in the layer before",
        ONE_DROP,
        "FastV (ECCV 2024)",
        "pkunlp-icler/FastV",
    ),
    _inside(
        "sparsevlm",
        Part("duet.baselines.sparsevlm:SparseVLM"),
        "ranked by text that the picture looks at; some dropped tokens are merged (v1.5)",
        SPARSEVLM,
        *_SPARSEVLM,
        positions="renumber",
    ),
    _inside(
        "sparsevlm_plus",
        Part("duet.baselines.sparsevlm:SparseVLM", {"version": "2"}),
        "SparseVLM+: attention without the effect of position, priority heads, no merging (v2)",
        SPARSEVLM,
        *_SPARSEVLM,
    ),
    _inside(
        "fitprune",
        Part("duet.baselines.fitprune:FitPrune"),
        "drops tokens after every layer, by attention from picture and text",
        FITPRUNE,
        "FitPrune (AAAI 2025)",
        "ywh187/FitPrune",
        note="schedule fitted for LLaVA-1.5-7B; other models use the same curve over their depth",
    ),
    _inside(
        "dart",
        Part("duet.baselines.dart:Dart"),
        "a few pivots, and the tokens least similar to them",
        ONE_DROP,
        "DART (EMNLP 2025)",
        "ModelTC/LightCompress",
        note="follows a port; the original code was not available",
    ),
    _before("hired", "HiRED", "CLS attention; crops share the budget", "HiRED (AAAI 2025)", "hasanar1f/HiRED"),
    _before("prumerge", "PruMerge", "CLS attention, 32 others merged into each patch", *_PRUMERGE),
    _before("prumerge_plus", "PruMergePlus", "PruMerge, half of the patches on a grid", *_PRUMERGE),
)
#: Our own method, and ranks that tell nothing.
_COVER, _COVER_PRUNE = Part("duet.cover.cover:Cover"), Part("duet.cover.prune:CoverPrune")
_BEYOND = (
    Method(
        "cover",
        _COVER,
        None,
        "stage 1 of duet_cover alone: patches that cover the picture best",
        PLAIN,
        positions="keep",
        paper="docs/beyond.md",
        code="ours",
    ),
    Method(
        "duet_cover",
        _COVER,
        _COVER_PRUNE,
        "tokens that cover the picture best, before and inside the language model",
        SAFE,
        positions="keep",
        paper="docs/beyond.md",
        code="ours",
    ),
    _inside(
        "inverted",
        Part("duet.baselines.inverted:Inverted"),
        "what the last text token looks at least",
        PYRAMID,
        **_CONTROL,
    ),
    _inside(
        "random_rank",
        Part("duet.baselines.random_rank:RandomRank"),
        "random tokens inside the language model",
        PYRAMID,
        **_CONTROL,
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in (*_TABLE, *_BEFORE, *_PRINTED, *_BEYOND)}
#: `duet` is what the released scripts really run: their salient list never reaches the decoder.
ALIASES = {"duet": "duet_c_all"}
#: Names of single parts, for compositions; a method's name also means its part of that stage.
PARTS = {
    1: {"duet_merge": CLUSTERS},
    2: {"duet_prune": GUIDED["all"], "duet_prune_s": GUIDED["salient"], "cover_prune": _COVER_PRUNE},
}
STAGE_MARKS = {1: "stage1:", 2: "stage2:"}


def methods() -> dict[str, str]:
    """Names of all methods, each with a one-line description."""
    load_entry_points()
    lines = {name: method.about for name, method in METHODS.items()}
    return {**lines, **{alias: f"the same as {name}" for alias, name in ALIASES.items()}}


def find_method(name: str) -> Method:
    """A method by its name, an alias, a composition (`stage1:scope+stage2:duet_prune`), or one of these with options.

    Options in brackets follow the name of a method or part: `scope[alpha=2]`, `duet_cover[merge=cluster,words=1]`.

    Raises:
        UserError: unknown name or option; the message suggests the nearest ones.
    """
    load_entry_points()
    if any(name.startswith(mark) for mark in STAGE_MARKS.values()):
        return _compose(name)
    name, options = split_variant(name)
    name = ALIASES.get(name, name)
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}; {suggest(name, methods())}")
    return variant(METHODS[name], options) if options else METHODS[name]


def variant(method: Method, options: dict[str, Any]) -> Method:
    """A method with options of its own parts set.

    Raises:
        UserError: an option that none of its parts has, or an unusable value.
    """
    parts = with_options(tuple(part for part in (method.reducer, method.pruner) if part), options, method.name)
    found = dict(zip(method.stages, parts, strict=True))
    text = ",".join(f"{name}={value}" for name, value in options.items())
    return replace(method, name=f"{method.name}[{text}]", reducer=found.get(1), pruner=found.get(2))


def reads_width(method: Method, contextual_merge: str | None = None) -> bool:
    """Whether a budget's `cluster_width` matters: for DUET's clusters, and for an external stage 1."""
    part = method.reducer
    return part is not None and (part.stage > 0 or (part == CLUSTERS and contextual_merge != "visionzip"))


def register(
    name: str,
    *,
    reducer: Callable[..., Any] | None = None,
    pruner: Callable[..., Any] | None = None,
    about: str = "",
    schedule: Schedule | None = None,
    positions: str | None = None,
    paper: str = "",
    code: str = "",
) -> None:
    """Add an external method; it then works with every backbone, budget, benchmark, figure and table.

    Args:
        name: letters, digits and underscores.
        reducer: class of stage 1, a `duet.interfaces.VisionReducer`; fields of a frozen dataclass become switches.
        pruner: class of stage 2, a `duet.interfaces.DecoderPruner`.
        about: one line for `duet methods`.
        schedule: schedule of its budgets (`duet.budget.schedules`); default by its stages.
        positions: `renumber` or `keep` on the LLaVA family; default is the backbone's.
        paper, code: its source.

    Raises:
        UserError: the name is taken or invalid, or there is no part.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(f"method name {name!r}: use letters, digits and underscores")
    if reducer is None and pruner is None:
        raise UserError(f"method {name} has no part: give a reducer, a pruner or both")
    for part in (reducer, pruner):
        if part is not None and not isinstance(part, type):
            raise UserError(f"method {name}: {part!r} is not a class; give the class itself, not its name or an object")
    if positions not in (None, "renumber", "keep"):
        raise UserError(f"positions is {positions!r}; choose renumber, keep")
    if schedule is not None and not isinstance(schedule, Schedule):
        raise UserError(f"method {name}: schedule is {schedule!r}; give one of duet.budget.schedules")
    parts = [None if part is None else Part(part, {}, stage, name) for stage, part in ((1, reducer), (2, pruner))]
    method = Method(name, parts[0], parts[1], about, None, positions, paper, code)
    method = replace(method, schedule=schedule or _shape(method.stages, parts[0]))
    if name in ALIASES or (name in METHODS and METHODS[name] != method):
        raise UserError(f"method {name} already exists; choose another name")
    METHODS[name] = method


def _compose(name: str) -> Method:
    parts: dict[int, Part] = {}
    for piece in name.split("+"):
        stage = next((number for number, mark in STAGE_MARKS.items() if piece.startswith(mark)), None)
        if stage is None or stage in parts:
            raise UserError(f"method {name!r}: write stage1:NAME, stage2:NAME or stage1:NAME+stage2:NAME")
        parts[stage] = _part(piece.removeprefix(STAGE_MARKS[stage]), stage)
    reducer, pruner = parts.get(1), parts.get(2)
    stages = tuple(sorted(parts))
    named = [piece.split(":", 1)[1] for piece in name.split("+")]
    plain = [split_variant(one)[0] for one in named]
    own = [METHODS[ALIASES.get(one, one)] for one in plain if ALIASES.get(one, one) in METHODS]
    positions = "keep" if any(method.positions == "keep" for method in own) else None
    about = " + ".join(part.name for part in (reducer, pruner) if part is not None)
    schedule = next((one.schedule for one in own if one.stages == stages), None) or _shape(stages, reducer)
    return Method(name, reducer, pruner, f"composition: {about}", schedule, positions)


def _part(name: str, stage: int) -> Part:
    name, options = split_variant(name)
    part = PARTS[stage].get(name)
    method = METHODS.get(ALIASES.get(name, name))
    if part is None and method is not None:
        part = method.reducer if stage == 1 else method.pruner
    if part is not None:
        return with_options((part,), options, name)[0] if options else part
    known = [one.name for one in METHODS.values() if stage in one.stages] + list(PARTS[stage])
    raise UserError(f"no method {name!r} with a stage {stage}; {suggest(name, known)}")


def _shape(stages: tuple[int, ...], reducer: Part | None) -> Schedule:
    """The paper's schedule for methods with these stages; no contextual tokens if the reducer makes none."""
    if stages == (2,):
        return PYRAMID
    merges = reducer is not None and bool(getattr(reducer.factory, "contextual", False))
    if stages == (1,):
        return FLAT if merges else PLAIN
    return DUET if merges else replace(DUET, name="duet, nothing merged", settings=None)
