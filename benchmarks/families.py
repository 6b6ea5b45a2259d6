"""The model families: build a model of a given shape, its prompts, and find its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import CLIPVisionConfig, LlamaConfig

from duet.backbones import clip, qwen
from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor

    from benchmarks.shapes import Shape, Stack

#: Text tokens before the picture in LLaVA-1.5's prompt (system text and "USER: ").
BEFORE = 34
PATCH_SIZE = 14
#: Side of CLIP's input in pixels: a picture or crop (LLaVA-1.5, LLaVA-NeXT), a frame (Video-LLaVA); frames of a video.
PICTURE, FRAME, FRAMES = 336, 224, 8
#: Default patches of Qwen's picture: 1280 visual tokens.
QWEN_PATCHES = 5120


@dataclass(frozen=True)
class Asked:
    """Rows of the batch; patches of Qwen's picture and frames of Video-LLaVA's video, 0 for the default."""

    rows: int = 1
    patches: int = 0
    frames: int = 0


@dataclass(frozen=True)
class Media:
    """The visual part of a batch of prompts.

    Attributes:
        placeholder: token id; count: placeholders per row.
        patches: visual tokens of a unit (picture, crop, frame) that stage 1 chooses from; units: units per row.
        separators: placeholders per row that no method drops.
        inputs: pixels of all rows, and their other arguments to the model's forward.
    """

    placeholder: int
    count: int
    patches: int
    units: int
    separators: int
    inputs: dict[str, Tensor]


@dataclass(frozen=True)
class Prompt:
    """A batch of prompts without padding.

    Attributes:
        inputs: `input_ids [B, T]`, pixels, and other arguments to the model's forward.
        text: tokens per row that no method drops: words and separators.
        patches, units: see `Media`.
    """

    inputs: dict[str, Tensor]
    text: int
    patches: int
    units: int


@dataclass(frozen=True)
class Family:
    """Facts about a family that the benchmark needs besides the adapter.

    Attributes:
        model: class in transformers.
        config: builds its configuration from a shape.
        media: configuration, `Asked`, generator -> `Media`.
        towers: attributes of the body.
        projector: attribute of the body; None if it is part of the tower.
        scoring: functions that compute score rows of the tower, `(module, name)`.
        size: field of `Asked` that it uses; None if all pictures have the same size.
    """

    model: str
    config: Callable[[Shape], Any]
    media: Callable[[Any, Asked, Generator], Media]
    towers: tuple[str, ...]
    projector: str | None
    scoring: tuple[tuple[Any, str], ...]
    size: str | None = None

    def towers_of(self, model: Any) -> list[Any]:
        """The towers of a model."""
        return [getattr(model.model, name) for name in self.towers]


def family_of(model: Any) -> Family:
    """The family of a model from `build_model`."""
    return next(family for family in FAMILIES.values() if family.model == type(model).__name__)


def build_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """A stock model with random weights, in eval mode; its towers are frozen, as in LLaVA's training."""
    family = FAMILIES[shape.family]
    config = family.config(shape)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = getattr(transformers, family.model)(config)
    finally:
        torch.set_default_dtype(before)
    for tower in family.towers_of(model):
        tower.requires_grad_(False)
    return model.eval()


def build_prompt(model: Any, asked: Asked, text: int) -> Prompt:
    """Pictures or a video, and `text` words per row.

    Args:
        model: from `build_model`.
        asked: number and size of the pictures.
        text: words per row, `BEFORE` of them before the picture.

    Raises:
        UserError: too few words, or a size that this family's pictures can't have.
    """
    if text <= BEFORE:
        raise UserError(f"--text {text}: a prompt has {BEFORE} text tokens before its picture and some after it")
    family = family_of(model)
    for name in ("patches", "frames"):
        if getattr(asked, name) and name != family.size:
            raise UserError(f"--{name} has no effect on {family.model}")
    generator = torch.Generator().manual_seed(0)
    media = family.media(model.config, asked, generator)
    words = torch.randint(3, model.config.get_text_config().vocab_size - 8, (asked.rows, text), generator=generator)
    shown = torch.full((asked.rows, media.count), media.placeholder)
    ids = torch.cat([words[:, :BEFORE], shown, words[:, BEFORE:]], dim=1)
    inputs = {"input_ids": ids, **media.inputs}
    if "image_grid_thw" in inputs:
        inputs["mm_token_type_ids"] = (ids == media.placeholder).int()
    moved = {
        name: values.to(model.device, model.dtype if values.is_floating_point() else None)
        for name, values in inputs.items()
    }
    return Prompt(moved, text + media.separators, media.patches, media.units)


def _clip(stack: Stack, size: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=stack.width,
        intermediate_size=stack.mlp_width,
        num_hidden_layers=stack.layers,
        num_attention_heads=stack.heads,
        image_size=size,
        patch_size=PATCH_SIZE,
        projection_dim=stack.width,
    )


def _sizes(stack: Stack) -> dict[str, int]:
    return {
        "hidden_size": stack.width,
        "intermediate_size": stack.mlp_width,
        "num_hidden_layers": stack.layers,
        "num_attention_heads": stack.heads,
        "num_key_value_heads": stack.kv_heads,
        "max_position_embeddings": 32768,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _llama(shape: Shape) -> LlamaConfig:
    return LlamaConfig(vocab_size=shape.vocabulary, **_sizes(shape.decoder))


def _llava15(shape: Shape) -> Any:
    return transformers.LlavaConfig(
        vision_config=_clip(shape.tower, PICTURE), text_config=_llama(shape), image_token_index=shape.vocabulary - 1
    )


def _llava15_media(config: Any, asked: Asked, generator: Generator) -> Media:
    count = (PICTURE // PATCH_SIZE) ** 2
    pixels = torch.randn(asked.rows, 3, PICTURE, PICTURE, generator=generator)
    return Media(config.image_token_id, count, count, 1, 0, {"pixel_values": pixels})


def _videollava(shape: Shape) -> Any:
    return transformers.VideoLlavaConfig(
        vision_config=_clip(shape.tower, FRAME),
        text_config=_llama(shape),
        image_token_index=shape.vocabulary - 2,
        video_token_index=shape.vocabulary - 1,
    )


def _videollava_media(config: Any, asked: Asked, generator: Generator) -> Media:
    """A video whose frames have a CLS token each."""
    frames, patches = asked.frames or FRAMES, (FRAME // PATCH_SIZE) ** 2
    pixels = torch.randn(asked.rows, frames, 3, FRAME, FRAME, generator=generator)
    return Media(config.video_token_id, frames * (patches + 1), patches, frames, 0, {"pixel_values_videos": pixels})


def _llavanext(shape: Shape) -> Any:
    return transformers.LlavaNextConfig(
        vision_config=_clip(shape.tower, PICTURE), text_config=_llama(shape), image_token_index=shape.vocabulary - 1
    )


def _llavanext_media(config: Any, asked: Asked, generator: Generator) -> Media:
    """A square picture, whole and as 2 x 2 tiles; a newline token ends each of the 48 rows of the tiles."""
    side = PICTURE // PATCH_SIZE
    pixels = torch.randn(asked.rows, 5, 3, PICTURE, PICTURE, generator=generator)
    sizes = torch.tensor([[2 * PICTURE, 2 * PICTURE]] * asked.rows)
    inputs = {"pixel_values": pixels, "image_sizes": sizes}
    return Media(config.image_token_id, 5 * side**2 + 2 * side, side**2, 5, 2 * side, inputs)


def _qwen2_5(shape: Shape) -> Any:
    tower, decoder = shape.tower, shape.decoder
    share = decoder.width // decoder.heads // 16
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2 * share, 3 * share, 3 * share]}
    eyes = {
        "depth": tower.layers,
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp_width,
        "num_heads": tower.heads,
        "out_hidden_size": decoder.width,
        "fullatt_block_indexes": list(shape.full_layers),
    }
    text = {**_sizes(decoder), "vocab_size": shape.vocabulary, "rope_parameters": rope}
    return transformers.Qwen2_5_VLConfig(vision_config=eyes, text_config=text, **_qwen_tokens(shape))


def _qwen3(shape: Shape) -> Any:
    tower, decoder = shape.tower, shape.decoder
    head = decoder.width // decoder.heads
    side = head // 2 * 20 // 64
    sections = {"mrope_section": [head // 2 - 2 * side, side, side], "mrope_interleaved": True}
    eyes = {
        "depth": tower.layers,
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp_width,
        "num_heads": tower.heads,
        "out_hidden_size": decoder.width,
        "deepstack_visual_indexes": list(shape.deep),
    }
    text = {**_sizes(decoder), "vocab_size": shape.vocabulary, "head_dim": head}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e6, **sections}
    return transformers.Qwen3VLConfig(vision_config=eyes, text_config=text, **_qwen_tokens(shape))


def _qwen_tokens(shape: Shape) -> dict[str, int]:
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {name: shape.vocabulary - number for number, name in enumerate(names, 1)}


def _qwen_media(config: Any, asked: Asked, generator: Generator) -> Media:
    """A picture, as square as whole tokens of 2 x 2 patches allow.

    Raises:
        UserError: the patches do not make a whole number of tokens.
    """
    patches = asked.patches or QWEN_PATCHES
    tokens, rest = divmod(patches, config.vision_config.spatial_merge_size**2)
    if rest or tokens < 1:
        raise UserError(f"--patches {patches}: give a multiple of 4, the patches of a visual token")
    height = max(side for side in range(1, math.isqrt(tokens) + 1) if tokens % side == 0)
    merge = config.vision_config.spatial_merge_size
    grid = torch.tensor([[1, merge * height, merge * (tokens // height)]] * asked.rows)
    pixels = torch.randn(asked.rows * patches, 3 * 2 * config.vision_config.patch_size**2, generator=generator)
    return Media(config.image_token_id, tokens, tokens, 1, 0, {"pixel_values": pixels, "image_grid_thw": grid})


_CLIP_SCORING = ((clip.Found, "read"), (clip.Found, "read_wide"))
_QWEN_SCORING = ((qwen, "_queries_and_keys"), (qwen, "_received"), (qwen, "_keys_and_rows"))
FAMILIES = {
    "llava15": Family(
        "LlavaForConditionalGeneration",
        _llava15,
        _llava15_media,
        ("vision_tower",),
        "multi_modal_projector",
        _CLIP_SCORING,
    ),
    "llavanext": Family(
        "LlavaNextForConditionalGeneration",
        _llavanext,
        _llavanext_media,
        ("vision_tower",),
        "multi_modal_projector",
        _CLIP_SCORING,
    ),
    "videollava": Family(
        "VideoLlavaForConditionalGeneration",
        _videollava,
        _videollava_media,
        ("image_tower", "video_tower"),
        "multi_modal_projector",
        _CLIP_SCORING,
        "frames",
    ),
    "qwen2_5_vl": Family(
        "Qwen2_5_VLForConditionalGeneration",
        _qwen2_5,
        _qwen_media,
        ("visual",),
        None,
        _QWEN_SCORING,
        "patches",
    ),
    "qwen3_vl": Family(
        "Qwen3VLForConditionalGeneration",
        _qwen3,
        _qwen_media,
        ("visual",),
        None,
        _QWEN_SCORING,
        "patches",
    ),
}
