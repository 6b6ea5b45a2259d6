"""Convert the original Video-LLaVA checkpoint layout to the Hugging Face layout.

The original (`LanguageBind/Video-LLaVA-7B`) is a LLaMA whose config.json names two LanguageBind towers, one for
pictures and one for videos. It contains the weights of both; their sizes are in the towers' own config.json. Both are
CLIP towers that see one frame at a time. The Hugging Face class builds both from one `vision_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CLIPVisionConfig, VideoLlavaConfig

from duet.checkpoints.files import CheckpointError
from duet.checkpoints.original import clip_vision, refuse_inexpressible, swap_prefix, text_config

#: Towers, by their names in arguments and config entries.
TOWERS = ("image_tower", "video_tower")
#: (original, Hugging Face); the first matching prefix counts, in both directions.
PREFIXES = (
    *((f"model.{tower}.{tower}.", f"model.{tower}.") for tower in TOWERS),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.", "model.language_model."),
)
TOWER_PREFIXES = {tower: f"model.{tower}.{tower}." for tower in TOWERS}
#: Frames per video that the model was trained on.
FRAMES = 8
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "model_type": ("llava", "llava_custom"),
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_vision_select_feature": ("patch", "cls_patch"),
    "mm_use_im_start_end": (False,),
}
_ABSENT = {"mm_projector_type": "linear", "mm_vision_select_feature": "patch", "mm_use_im_start_end": False}


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json has the original layout, whose `model_type` is LLaVA's."""
    return all(config.get(f"mm_{tower}") for tower in TOWERS) and "vision_config" not in config


def to_hf_name(name: str) -> str:
    """Name of a tensor in `VideoLlavaForConditionalGeneration`; unknown names stay as they are."""
    return swap_prefix(name, PREFIXES)


def to_original_name(name: str) -> str:
    """Inverse of `to_hf_name`."""
    return swap_prefix(name, [(hf, original) for original, hf in PREFIXES])


def to_hf_config(
    config: Mapping[str, Any], towers: Mapping[str, Mapping[str, Any]], image_token_id: int, video_token_id: int
) -> VideoLlavaConfig:
    """`VideoLlavaConfig` of an original checkpoint.

    Args:
        config: config.json of the checkpoint.
        towers: config.json of each tower.
        image_token_id, video_token_id: ids of the placeholders; the vocabulary grows to hold them.

    Raises:
        CheckpointError: the checkpoint uses a part that `VideoLlavaModel` does not have.
    """
    refuse_inexpressible(config, _ALLOWED, _ABSENT, "Video-LLaVA, as transformers' VideoLlavaModel supports it")
    vision = _common_tower(towers)
    patches = (vision.image_size // vision.patch_size) ** 2
    full = config.get("mm_vision_select_feature", "patch") == "cls_patch"
    carried = {"max_sequence_length": config["max_sequence_length"]} if "max_sequence_length" in config else {}
    return VideoLlavaConfig(
        vision_config=vision,
        text_config=text_config(config, max(image_token_id, video_token_id)),
        image_token_index=image_token_id,
        video_token_index=video_token_id,
        image_seq_length=patches + full,
        video_seq_length=FRAMES * (patches + 1),
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="full" if full else "default",
        projector_hidden_act="gelu",
        **carried,
    )


def _common_tower(towers: Mapping[str, Mapping[str, Any]]) -> Any:
    """The settings shared by both towers."""
    kinds = []
    for name, tower in towers.items():
        settings = clip_vision(tower)
        if settings.get("add_time_attn"):
            raise CheckpointError(f"the {name} has attention over time, which transformers' VideoLlavaModel lacks")
        # drop LanguageBind's own entries, which would stay in the config
        known = CLIPVisionConfig().to_dict()
        kinds.append(CLIPVisionConfig.from_dict({key: value for key, value in settings.items() if key in known}))
    first, *others = (kind.to_dict() for kind in kinds)
    for other in others:
        sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")
        for entry in (*sizes, "image_size", "patch_size", "layer_norm_eps"):
            if first[entry] != other[entry]:
                raise CheckpointError(f"the towers differ: {entry} is {first[entry]} and {other[entry]}")
    return kinds[0]
