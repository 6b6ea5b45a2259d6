"""Convert the original checkpoint layout of LLaVA-1.5 and LLaVA-NeXT to the Hugging Face layout.

The original (`liuhaotian/llava-v1.5-7b`, `liuhaotian/llava-v1.6-mistral-7b`) is a LLaMA or Mistral whose config.json
has `mm_*` entries, with the projector under `model.mm_projector` and the CLIP tower either inside or in a separate
folder. `mm_patch_merge_type: spatial_unpad` makes it a LLaVA-NeXT. Settings that transformers' classes cannot express
are refused by name, not loaded as something else.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from transformers import CLIPVisionConfig, LlavaConfig, LlavaNextConfig

from duet.checkpoints.files import CheckpointError
from duet.checkpoints.original import clip_vision, refuse_inexpressible, swap_prefix, text_config
from duet.checkpoints.sanity import check_pinpoints

#: (original, Hugging Face); the first matching prefix counts, in both directions.
PREFIXES = (
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("model.", "model.language_model."),
)
TOWER_PREFIX = PREFIXES[0][0]


def is_original(config: dict[str, Any]) -> bool:
    """Whether a config.json has the original layout; `model_type` does not show it, both layouts say `llava`."""
    return bool(config.get("mm_vision_tower")) and "vision_config" not in config


def to_hf_name(name: str) -> str:
    """Name of a tensor in transformers' class; unknown names stay as they are."""
    return swap_prefix(name, PREFIXES)


def to_original_name(name: str) -> str:
    """Inverse of `to_hf_name`."""
    return swap_prefix(name, [(hf, original) for original, hf in PREFIXES])


def to_hf_config(
    config: dict[str, Any], tower: dict[str, Any], image_token_id: int, ends: Sequence[int] = ()
) -> LlavaConfig | LlavaNextConfig:
    """`LlavaConfig` or `LlavaNextConfig` of an original checkpoint.

    Args:
        config: config.json of the checkpoint.
        tower: config.json of the vision tower, from a CLIP vision model or a whole CLIP.
        image_token_id: id of the placeholder; the vocabulary grows to hold it.
        ends: tokens that end an answer in addition to the checkpoint's end token.

    Raises:
        CheckpointError: the checkpoint uses a part that transformers' class does not have.
    """
    tiled = config.get("mm_patch_merge_type", "flat") != "flat"
    _refuse_inexpressible(config, tiled)
    vision: Any = CLIPVisionConfig.from_dict(clip_vision(tower))
    text: Any = text_config(config, image_token_id)
    if ends:
        text.eos_token_id = [text.eos_token_id, *ends]
    full = config.get("mm_vision_select_feature", "patch") == "cls_patch"
    shared = {
        "vision_config": vision,
        "text_config": text,
        "image_token_index": image_token_id,
        "image_seq_length": (vision.image_size // vision.patch_size) ** 2 + full,
        "vision_feature_layer": config.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "full" if full else "default",
        "projector_hidden_act": "gelu",
        **{name: config[name] for name in ("max_sequence_length",) if name in config},
    }
    return LlavaNextConfig(**shared, image_grid_pinpoints=_pinpoints(config)) if tiled else LlavaConfig(**shared)


def _pinpoints(config: dict[str, Any]) -> list[list[int]]:
    """Heights and widths from the original's widths and heights, in the same order: ties go to the first in both."""
    found: Any = config.get("image_grid_pinpoints")
    try:
        made = [[height, width] for width, height in (ast.literal_eval(found) if isinstance(found, str) else found)]
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"config.json says image_grid_pinpoints = {str(found)[:200]!r}; it must be a list of pairs"
        ) from error
    check_pinpoints(made, "config.json")
    return made


def _refuse_inexpressible(config: dict[str, Any], tiled: bool) -> None:
    allowed: dict[str, tuple[Any, ...]] = {
        "model_type": ("llava", "llava_llama", "llava_mistral") if tiled else ("llava", "llava_llama"),
        "mm_projector_type": ("mlp2x_gelu",),
        "mm_vision_select_feature": ("patch", "cls_patch"),
        "mm_patch_merge_type": ("flat",),
        "mm_use_im_start_end": (False,),
        "image_aspect_ratio": ("pad", "square", None),
    }
    if tiled:
        allowed |= {
            "mm_vision_select_feature": ("patch",),
            "mm_patch_merge_type": ("spatial_unpad",),
            "image_aspect_ratio": ("anyres",),
        }
    # the original's defaults for absent entries
    absent: dict[str, Any] = {
        "mm_projector_type": "linear",
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "flat",
        "mm_use_im_start_end": False,
    }
    model = "LLaVA-NeXT, as transformers' LlavaNextModel" if tiled else "LLaVA-1.5, as transformers' LlavaModel"
    refuse_inexpressible(config, allowed, absent, f"{model} supports it")
