"""The backbones, one entry each: vision side, decoder side, prompts and loader."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from duet.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from duet.interfaces import Asking


@dataclass(frozen=True)
class Family:
    """A backbone.

    Attributes:
        name: for messages and tables.
        classes: names of its model classes, with the head.
        model_types: `model_type` values of its config.
        vision, decoder, asking: `module:Class`, see `duet.interfaces`; imported on first use.
        loader: `module:function`, see `duet.load`.
        original: module with the names of the original layout (`to_hf_name`, `to_original_name`); None without one.
        builder: `module:function` that assembles a model from a language model and towers; None without one.
        tower, projector: prefixes of the parameters that encode pictures, and of those that bring them to the language
            model; the longest prefix counts. All others but `image_newline` belong to the language model.
        positions: released behaviour: `renumber` or `keep` the position ids of the remaining tokens.
        causal_ranking: released behaviour: whether a voter sees only earlier tokens when visual tokens are ranked.
    """

    name: str
    classes: tuple[str, ...]
    model_types: tuple[str, ...]
    vision: str
    decoder: str
    asking: str
    loader: str
    original: str | None = None
    builder: str | None = None
    tower: tuple[str, ...] = ("model.vision_tower",)
    projector: tuple[str, ...] = ("model.multi_modal_projector",)
    positions: str = "renumber"
    causal_ranking: bool = True


_LLAMA = "duet.backbones.llama:LlamaDecoder"
_LLAVA_LOADER = "duet.llava.model.builder:load"
_QWEN_VISION = "duet.backbones.qwen_sides:QwenVision"
_QWEN_DECODER = "duet.backbones.qwen_sides:QwenDecoder"
_QWEN_ASKING = "duet.backbones.qwen_asking:QwenAsking"

FAMILIES = (
    Family(
        "LLaVA-1.5",
        ("LlavaForConditionalGeneration",),
        ("llava",),
        "duet.llava.adapter:LlavaVision",
        _LLAMA,
        "duet.llava.asking:LlavaAsking",
        _LLAVA_LOADER,
        "duet.llava.model.original",
        "duet.llava.model.builder:assemble_new",
    ),
    Family(
        "LLaVA-NeXT",
        ("LlavaNextForConditionalGeneration",),
        ("llava_next",),
        "duet.llava.next_adapter:LlavaNextVision",
        _LLAMA,
        "duet.llava.next_asking:LlavaNextAsking",
        _LLAVA_LOADER,
        "duet.llava.model.original",
        "duet.llava.model.builder:assemble_new",
    ),
    Family(
        "Video-LLaVA",
        ("VideoLlavaForConditionalGeneration",),
        ("video_llava",),
        "duet.videollava.adapter:VideoLlavaVision",
        _LLAMA,
        "duet.videollava.asking:VideoLlavaAsking",
        "duet.videollava.model.builder:load",
        "duet.videollava.model.original",
        "duet.videollava.model.builder:assemble_new",
        tower=("model.image_tower", "model.video_tower"),
    ),
    Family(
        "Qwen2.5-VL",
        ("Qwen2_5_VLForConditionalGeneration", "Qwen2VLForConditionalGeneration"),
        ("qwen2_5_vl", "qwen2_vl"),
        _QWEN_VISION,
        _QWEN_DECODER,
        _QWEN_ASKING,
        "duet.qwen2_5_vl.loading:load",
        tower=("model.visual",),
        projector=("model.visual.merger",),
        positions="keep",
        causal_ranking=False,
    ),
    Family(
        "Qwen3-VL",
        ("Qwen3VLForConditionalGeneration",),
        ("qwen3_vl",),
        _QWEN_VISION,
        _QWEN_DECODER,
        _QWEN_ASKING,
        "duet.qwen3_vl.loading:load",
        tower=("model.visual",),
        projector=("model.visual.merger", "model.visual.deepstack_merger_list"),
        positions="keep",
        causal_ranking=False,
    ),
)
#: Entry of an original config.json, for any `model_type` -> loader of that layout; the first match counts.
ORIGINAL_LOADERS = {"mm_video_tower": "duet.videollava.model.builder:load", "mm_vision_tower": _LLAVA_LOADER}


def model_types() -> dict[str, Family]:
    """`model_type` of a config -> family."""
    return {name: family for family in FAMILIES for name in family.model_types}


def find_family(model: nn.Module) -> tuple[Any, Family]:
    """The supported model inside a (wrapped) model, and its family.

    Raises:
        UserError: no module of a supported class.
    """
    from duet.engine.attachment import modules_of

    known = {name: family for family in FAMILIES for name in family.classes}
    for module in modules_of(model):
        for base in type(module).__mro__:
            if base.__name__ in known:
                return module, known[base.__name__]
    raise UserError(f"{type(model).__name__} is not supported; supported are {', '.join(known)}")


def find_asking(model: nn.Module, processor: Any) -> Asking:
    """The prompts of this model.

    Raises:
        UserError: the prompts of its family are not known.
    """
    config: Any = model.config
    families = model_types()
    if config.model_type not in families:
        raise UserError(f"questions can be asked to models of type {', '.join(families)}, not {config.model_type}")
    return imported(families[config.model_type].asking)(config, processor)


def imported(path: str) -> Any:
    """Import `module:name`."""
    module, name = path.split(":")
    return getattr(import_module(module), name)
