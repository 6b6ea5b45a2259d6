"""Tiny random Video-LLaVA models and prompts with pictures and videos, weights large as in `tests/tiny_llava.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, VideoLlavaConfig, VideoLlavaForConditionalGeneration

from duet.videollava.processing import picture_name
from tests.tiny_parts import draw_weights, pad_text

VOCAB, IMAGE, VIDEO, PAD = 96, 94, 95, 0
#: The argument for pictures, which transformers renamed.
PICTURES = picture_name()
SIZE, PATCH, FRAMES = 42, 14, 3
PATCHES = (SIZE // PATCH) ** 2
LAYERS = 6


def tiny_video_llava(strategy: str = "default", seed: int = 0) -> Any:
    """In float32 and eval mode: towers of 3 x 32, decoder of 6 x 32, 9 tokens per picture and 10 per frame."""
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        vocab_size=VOCAB,
        max_position_embeddings=512,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None,
    )
    config = VideoLlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        vision_feature_select_strategy=strategy,
        image_seq_length=PATCHES + (strategy == "full"),
        video_seq_length=FRAMES * (PATCHES + 1),
    )
    torch.manual_seed(seed)
    model = VideoLlavaForConditionalGeneration(config)
    return draw_weights(model, PAD)


@dataclass
class Row:
    """A prompt: `ids [T]`, `labels [T]`, `pictures [P, 3, H, W]`, `videos [V, T, 3, H, W]` in prompt order."""

    ids: Tensor
    labels: Tensor
    pictures: Tensor
    videos: Tensor


def make_row(kinds: str = "v", text: int = 6, seed: int = 0, frames: int = FRAMES, image_tokens: int = PATCHES) -> Row:
    """Words, the media in `kinds` with a word after each (`v` video, `p` picture), a question, two answer words."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> list[int]:
        return torch.randint(3, IMAGE, (count,), generator=generator).tolist()

    ids = words(2)
    for kind in kinds:
        ids += ([VIDEO] * frames * (PATCHES + 1) if kind == "v" else [IMAGE] * image_tokens) + words(1)
    ids += words(text)
    labels = [-100] * len(ids)
    answer = words(2)
    pictures = torch.randn(kinds.count("p"), 3, SIZE, SIZE, generator=generator)
    videos = torch.randn(kinds.count("v"), frames, 3, SIZE, SIZE, generator=generator)
    return Row(torch.tensor(ids + answer), torch.tensor(labels + answer), pictures, videos)


def prompt_of(row: Row) -> Row:
    """The row without its answer: what `generate` gets."""
    return Row(row.ids[:-2], row.labels[:-2], row.pictures, row.videos)


def collate(rows: list[Row], side: str = "left", labels: bool = False) -> dict[str, Tensor]:
    """Processor output of a padded batch; no pixels of a kind that no row has."""
    batch = pad_text(rows, PAD, side, labels)
    pixels = {
        PICTURES: torch.cat([row.pictures for row in rows]),
        "pixel_values_videos": torch.cat([row.videos for row in rows if len(row.videos)] or [torch.zeros(0)]),
    }
    batch |= {name: values for name, values in pixels.items() if len(values)}
    return batch
