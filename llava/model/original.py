"""The original LLaVA-1.5 checkpoint layout, in terms of the Hugging Face one.

The original (`liuhaotian/llava-v1.5-7b`) is a LLaMA whose config.json carries `mm_*` entries, with the projector under
`model.mm_projector` and the CLIP tower either inside or in a folder of its own. What `LlavaModel` cannot express is
refused here by name instead of being loaded as something else.
"""

from __future__ import annotations

from typing import Any

from transformers import CLIPVisionConfig, LlavaConfig

from duet.checkpoints.original import clip_vision, refuse_inexpressible, swap_prefix, text_config

#: (original, Hugging Face); the first prefix that fits counts, in both directions.
PREFIXES = (
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.", "model.language_model."),
)
TOWER_PREFIX = PREFIXES[0][0]


def is_original(config: dict[str, Any]) -> bool:
    """Whether a config.json is the original layout's; `model_type` alone does not tell, both say `llava`."""
    return bool(config.get("mm_vision_tower")) and "vision_config" not in config


def to_hf_name(name: str) -> str:
    """Name of a tensor in `LlavaForConditionalGeneration`; unknown names stay as they are."""
    return swap_prefix(name, PREFIXES)


def to_original_name(name: str) -> str:
    """Inverse of `to_hf_name`."""
    return swap_prefix(name, [(hf, original) for original, hf in PREFIXES])


def to_hf_config(config: dict[str, Any], tower: dict[str, Any], image_token_id: int) -> LlavaConfig:
    """`LlavaConfig` of an original checkpoint.

    Args:
        config: config.json of the checkpoint.
        tower: config.json of the vision tower, of a CLIP vision model or of a whole CLIP.
        image_token_id: id of the placeholder; the vocabulary grows to hold it.

    Raises:
        CheckpointError: the checkpoint uses a part that `LlavaModel` does not have.
    """
    _refuse_inexpressible(config)
    vision: Any = CLIPVisionConfig.from_dict(clip_vision(tower))
    full = config.get("mm_vision_select_feature", "patch") == "cls_patch"
    carried = {"max_sequence_length": config["max_sequence_length"]} if "max_sequence_length" in config else {}
    return LlavaConfig(
        vision_config=vision,
        text_config=text_config(config, image_token_id),
        image_token_index=image_token_id,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2 + full,
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="full" if full else "default",
        projector_hidden_act="gelu",
        **carried,
    )


def _refuse_inexpressible(config: dict[str, Any]) -> None:
    allowed: dict[str, tuple[Any, ...]] = {
        "model_type": ("llava", "llava_llama"),
        "mm_projector_type": ("mlp2x_gelu",),
        "mm_vision_select_feature": ("patch", "cls_patch"),
        "mm_patch_merge_type": ("flat",),
        "mm_use_im_start_end": (False,),
        "image_aspect_ratio": ("pad", "square", None),
    }
    # what the original takes where an entry is absent
    absent: dict[str, Any] = {
        "mm_projector_type": "linear",
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "flat",
    }
    absent |= {"mm_use_im_start_end": False}
    refuse_inexpressible(config, allowed, absent, "LLaVA-1.5, which is what transformers' LlavaModel can express")
