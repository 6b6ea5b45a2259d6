"""Tiny random LLaVA-NeXT models and prompts with pictures of any size, weights large as in `tests/tiny_llava.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
)

from tests.tiny_parts import draw_weights, pad_text

VOCAB, IMAGE, PAD = 96, 95, 0
SIZE, PATCH = 56, 14
SIDE = SIZE // PATCH
LAYERS = 6
#: Heights and widths; as in the real models, but for the size of a crop.
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]


def tiny_llava_next(text: str = "llama", seed: int = 0, pinpoints: Any = None, **text_options: Any) -> Any:
    """In float32 and eval mode: tower of 3 x 32, decoder of 6 x 32, 16 patches per crop.

    Args:
        text: `llama` or `mistral`.
        seed: of the weights.
        pinpoints: instead of `PINPOINTS`.
        text_options: of the text config.
    """
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
    )
    options = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "pad_token_id": PAD,
        "bos_token_id": None,
        "eos_token_id": None,
        **({"num_key_value_heads": 2, "sliding_window": None} if text == "mistral" else {}),
        **text_options,
    }
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=(MistralConfig if text == "mistral" else LlamaConfig)(**options),
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS if pinpoints is None else pinpoints,
        image_seq_length=SIDE**2,
        pad_token_id=PAD,
    )
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(config)
    draw_weights(model, PAD)
    torch.nn.init.normal_(model.model.image_newline)
    return model


def stock_tokens(size: tuple[int, int], pinpoints: Any = None) -> tuple[int, int]:
    """Crops of a picture and its tokens, as the stock processor counts them."""
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    grid = PINPOINTS if pinpoints is None else pinpoints
    processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
    processor.image_processor = LlavaNextImageProcessorPil(image_grid_pinpoints=grid)
    processor.patch_size, processor.num_additional_image_tokens = PATCH, 0
    tokens = LlavaNextProcessor._get_number_of_features(processor, *size, SIZE, SIZE)
    return image_size_to_num_patches(size, grid, SIZE), tokens


@dataclass
class Row:
    """A prompt: `ids [T]`, `labels [T]`, the `sizes` of its pictures and the crops `[C, 3, H, W]` of each."""

    ids: Tensor
    labels: Tensor
    sizes: list[tuple[int, int]]
    crops: list[Tensor]


def make_row(*sizes: tuple[int, int], text: int = 6, seed: int = 0, pinpoints: Any = None, answer: int = 2) -> Row:
    """Words, then pictures of these heights and widths with a word after each, a question, an answer."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> list[int]:
        return torch.randint(3, IMAGE, (count,), generator=generator).tolist()

    ids, crops = words(2), []
    for size in sizes:
        count, tokens = stock_tokens(size, pinpoints)
        ids += [IMAGE] * tokens + words(1)
        crops.append(torch.randn(count, 3, SIZE, SIZE, generator=generator))
    ids += words(text)
    labels, said = [-100] * len(ids), words(answer)
    return Row(torch.tensor(ids + said), torch.tensor(labels + said), list(sizes), crops)


def prompt_of(row: Row) -> Row:
    """The row without its answer: what `generate` gets."""
    told = int((row.labels != -100).sum())
    end = len(row.ids) - told
    return Row(row.ids[:end], row.labels[:end], row.sizes, row.crops)


def collate(rows: list[Row], side: str = "left", labels: bool = False) -> dict[str, Tensor]:
    """Processor output of a padded batch; no pixels where no row has a picture."""
    batch = pad_text(rows, PAD, side, labels)
    crops = [picture for row in rows for picture in row.crops]
    if crops:
        most = max(map(len, crops))
        padded = [torch.cat([crop, crop.new_zeros(most - len(crop), *crop.shape[1:])]) for crop in crops]
        batch["pixel_values"] = torch.stack(padded)
        batch["image_sizes"] = torch.tensor([size for row in rows for size in row.sizes])
    return batch
