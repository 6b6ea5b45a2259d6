"""LLaVA-1.5 models with random weights, in the shape of the real one or narrower, and prompts for them.

Speed does not depend on what the weights say, so none are loaded. Every shape sees 576 visual tokens of a 336 px
picture. `llava15-cpu` keeps the depth (24 tower layers, 32 decoder layers, so the paper's schedule holds as it is), the
width of a head and the ratio of the feed-forward block, and is 8 times narrower. Its tower does 5.6 % of the operations
of the uncompressed prefill, that of the real shape 4.1 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from duet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlavaForConditionalGeneration

IMAGE_SIZE, PATCH_SIZE = 336, 14
PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
#: Text tokens in front of the picture of LLaVA-1.5's prompt (system text and "USER: ").
BEFORE = 34


@dataclass(frozen=True)
class Shape:
    """Sizes of tower and decoder."""

    tower_layers: int
    tower_width: int
    tower_heads: int
    layers: int
    width: int
    mlp_width: int
    heads: int
    vocabulary: int = 32064


SHAPES = {
    "llava15-7b": Shape(24, 1024, 16, 32, 4096, 11008, 32),
    "llava15-13b": Shape(24, 1024, 16, 40, 5120, 13824, 40),
    "llava15-cpu": Shape(24, 128, 2, 32, 512, 1376, 4),
    "smoke": Shape(3, 16, 1, 8, 32, 64, 2, vocabulary=128),
}


def build_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """A stock model with random weights, in eval mode; its tower is frozen, as LLaVA trains it."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tower = CLIPVisionConfig(
        hidden_size=shape.tower_width,
        intermediate_size=4 * shape.tower_width,
        num_hidden_layers=shape.tower_layers,
        num_attention_heads=shape.tower_heads,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=shape.tower_width,
    )
    decoder = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
    )
    config = LlavaConfig(vision_config=tower, text_config=decoder, image_token_index=shape.vocabulary - 1)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.model.vision_tower.requires_grad_(False)
    return model.eval()


def build_prompt(model: LlavaForConditionalGeneration, batch: int, text: int) -> dict[str, Tensor]:
    """A picture and `text` text tokens per row, none padded.

    Args:
        model: of `build_model`.
        batch: rows B.
        text: text tokens of a row, `BEFORE` of them in front of the picture.

    Returns:
        `input_ids [B, text + 576]` and `pixel_values [B, 3, 336, 336]` on the model's device.

    Raises:
        UserError: too few text tokens.
    """
    if text <= BEFORE:
        raise UserError(f"--text {text}: a prompt has {BEFORE} text tokens in front of its picture and some behind it")
    generator = torch.Generator().manual_seed(0)
    image = model.config.image_token_id
    words = torch.randint(3, image, (batch, text), generator=generator)
    pictures = torch.full((batch, PATCHES), image)
    pixels = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    return {
        "input_ids": torch.cat([words[:, :BEFORE], pictures, words[:, BEFORE:]], dim=1).to(model.device),
        "pixel_values": pixels.to(model.device, model.dtype),
    }
