"""The original LLaVA-1.5 checkpoint layout, in terms of the Hugging Face one.

The original (`liuhaotian/llava-v1.5-7b`) is a LLaMA whose config.json carries `mm_*` entries, with the projector under
`model.mm_projector` and the CLIP tower either inside or in a folder of its own. What `LlavaModel` cannot express is
refused here by name instead of being loaded as something else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from llava.model.files import CheckpointError, read_json, read_tensors, resolve_folder, weight_files

if TYPE_CHECKING:
    from torch import Tensor

#: (original, Hugging Face); the first prefix that fits counts, in both directions.
PREFIXES = (
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.", "model.language_model."),
)
TOWER_PREFIX = PREFIXES[0][0]
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")
#: New vocabulary rows come in blocks of 64, the size that matrix units like (llava-hf/llava-1.5-7b-hf has 32064 rows).
ROW_BLOCK = 64


def is_original(config: dict[str, Any]) -> bool:
    """Whether a config.json is the original layout's; `model_type` alone does not tell, both say `llava`."""
    return bool(config.get("mm_vision_tower")) and "vision_config" not in config


def to_hf_name(name: str) -> str:
    """Name of a tensor in `LlavaForConditionalGeneration`; unknown names stay as they are."""
    return _swap(name, PREFIXES)


def to_original_name(name: str) -> str:
    """Inverse of `to_hf_name`."""
    return _swap(name, [(hf, original) for original, hf in PREFIXES])


def _swap(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


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
    vision: Any = CLIPVisionConfig.from_dict(_clip_vision(tower))
    known = {field.name for field in fields(LlamaConfig)} | {"rope_theta", "rope_scaling"}
    text = LlamaConfig(**{k: v for k, v in config.items() if k in known and v is not None})
    if image_token_id >= text.vocab_size:
        text.vocab_size = -(-(image_token_id + 1) // ROW_BLOCK) * ROW_BLOCK
    full = config.get("mm_vision_select_feature", "patch") == "cls_patch"
    carried = {"max_sequence_length": config["max_sequence_length"]} if "max_sequence_length" in config else {}
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
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
    for name, values in allowed.items():
        value = config.get(name, absent.get(name))
        if value not in values:
            raise CheckpointError(
                f"config.json says {name} = {value!r}; this loader takes {' or '.join(map(repr, values))} "
                "(LLaVA-1.5), which is what transformers' LlavaModel can express"
            )


def _clip_vision(tower: dict[str, Any]) -> dict[str, Any]:
    kind = tower.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise CheckpointError(f"the vision tower has model_type {kind!r}; supported are clip and clip_vision_model")
    return tower.get("vision_config", tower)


def tower_folder(config: dict[str, Any], folder: Path, given: str | Path | None, *, weights: bool) -> Path:
    """Folder of the vision tower: `given` if any, else what `mm_vision_tower` says, relative paths against `folder`."""
    name = str(given or config["mm_vision_tower"])
    if given is None and (folder / name).is_dir():
        return folder / name
    try:
        return resolve_folder(name, weights=weights)
    except CheckpointError as error:
        raise CheckpointError(f"vision tower: {error} (`vision_tower=FOLDER` says where it is)") from error


def read_tower(folder: Path) -> dict[str, Tensor]:
    """Tensors of a CLIP vision tower in a folder of its own, under original names; a text half is left out."""
    has_text = read_json(folder / "config.json").get("model_type") == "clip"
    found = {}
    for name, tensor in read_tensors(weight_files(folder)).items():
        if name.startswith("vision_model.") or not has_text:
            found[TOWER_PREFIX + name.removeprefix("vision_model.")] = tensor
    return found


def grow_vocabulary(tensors: dict[str, Tensor], rows: int) -> None:
    """Give embedding and head `rows` rows, in place; new ones are the mean of the old.

    The embedding of a placeholder is overwritten by the picture. A mean row in the head gives the mean of all logits,
    which is never above the largest one, and by Jensen's inequality changes a loss by at most log(rows / old rows).
    """
    for name in EMBEDDINGS:
        if name in tensors and len(tensors[name]) < rows:
            old = tensors[name]
            mean = old.float().mean(0, keepdim=True).to(old.dtype)
            tensors[name] = torch.cat([old, mean.expand(rows - len(old), -1)])
