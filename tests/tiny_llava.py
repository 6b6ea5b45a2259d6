"""Tiny random LLaVA models and prompts: made in the test, with weights so large that attention has clear favourites."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, MistralConfig

from duet.budget import Budget
from tests.tiny_parts import draw_weights, pad_text

VOCAB, IMAGE, PAD = 96, 95, 0
SIZE, PATCH = 56, 14
PATCHES = (SIZE // PATCH) ** 2
LAYERS = 6

#: 16 patches -> 9 tokens -> 5 after two layers -> 2 after four.
BUDGET = Budget(dominant=6, contextual=3, cluster_width=2, layers=(2, 4), ratios=(0.6, 0.25))
#: The last drop takes every visual token.
ENDING = Budget(dominant=6, contextual=3, cluster_width=2, layers=(2, 4), ratios=(0.6, 0.0))


def tiny_llava(text: str = "llama", strategy: str = "default", seed: int = 0, **text_options: Any) -> Any:
    """A LLaVA-1.5 in float32 and eval mode: tower of 3 x 32, decoder of 6 x 32, 16 patches per picture.

    Args:
        text: `llama` or `mistral` (grouped-query heads).
        strategy: `default` or `full` (CLS is a visual token).
        seed: of the weights.
        text_options: of the text config.
    """
    options = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "vocab_size": VOCAB,
        "max_position_embeddings": 256,
        "pad_token_id": PAD,
        "bos_token_id": None,
        "eos_token_id": None,
        **({"num_key_value_heads": 2, "sliding_window": None} if text == "mistral" else {}),
        **text_options,
    }
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
    )
    text_class = MistralConfig if text == "mistral" else LlamaConfig
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_class(**options),
        image_token_id=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy=strategy,
        image_seq_length=PATCHES + (strategy == "full"),
        pad_token_id=PAD,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    return draw_weights(model, PAD)


@dataclass
class Row:
    """One prompt: `ids [T]` with placeholders, its pictures `[P, 3, H, W]`, `labels [T]`."""

    ids: Tensor
    pixels: Tensor
    labels: Tensor


def make_row(pictures: int = 1, text: int = 6, seed: int = 0, placeholders: int = PATCHES, turns: int = 1) -> Row:
    """Words, then pictures with a word between them, then `turns` of `text` words of question and two of answer."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> list[int]:
        return torch.randint(3, IMAGE, (count,), generator=generator).tolist()

    ids, labels = words(2), [-100, -100]
    for _ in range(pictures):
        ids += [IMAGE] * placeholders + words(1)
        labels += [-100] * (placeholders + 1)
    for _ in range(turns):
        question, answer = words(text), words(2)
        ids += question + answer
        labels += [-100] * text + answer
    pixels = torch.randn(pictures, 3, SIZE, SIZE, generator=generator)
    return Row(torch.tensor(ids), pixels, torch.tensor(labels))


def prompt_of(row: Row) -> Row:
    """The row without its last answer: what `generate` gets."""
    return Row(row.ids[:-2], row.pixels, row.labels[:-2])


def collate(rows: list[Row], side: str = "left", labels: bool = False) -> dict[str, Tensor]:
    """Processor output of a padded batch; no `pixel_values` where no row has a picture."""
    batch = pad_text(rows, PAD, side, labels)
    pixels = torch.cat([row.pixels for row in rows])
    if len(pixels):
        batch["pixel_values"] = pixels
    return batch


def fill_salient(input_ids: Tensor, text: Tensor) -> Tensor:
    """A stand-in for the finder of content words: every word with an even id."""
    return text & (input_ids % 2 == 0)


def twin(model: Any) -> Any:
    """An independent copy of a model."""
    return deepcopy(model)
