"""Tiny random Qwen2.5-VL and Qwen2-VL models and prompts: pictures of any size, videos, several per row, none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from duet.budget import Budget
from tests.tiny_parts import draw_weights, pad_text

VOCAB, IMAGE, VIDEO, START, END, PAD = 96, 95, 94, 93, 92, 0
LAYERS, PATCH, MERGE = 6, 4, 2
#: Every picture keeps 4 of its tokens and 2 merged ones, if it has as many; then 60 % and 25 % of them all.
BUDGET = Budget(dominant=4, contextual=2, cluster_width=2, layers=(2, 4), ratios=(0.6, 0.25))


def tiny_qwen(family: str = "qwen2_5_vl", tie: bool = False, layers: int = LAYERS, seed: int = 0) -> Any:
    """In float32 and eval mode: tower of 4 x 32 (two blocks with windows of 2 x 2 tokens), decoder of 6 x 32.

    Args:
        family: `qwen2_5_vl` or `qwen2_vl`.
        tie: one matrix for embeddings and head, as in the 3B model.
        layers: of the decoder.
        seed: of the weights.
    """
    text = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": PAD,
    }
    eyes = {"depth": 4, "num_heads": 4, "patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": 2}
    if family == "qwen2_5_vl":
        sizes = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "window_size": 4 * PATCH}
        eyes |= {**sizes, "fullatt_block_indexes": [1, 3], "tokens_per_second": 2}
        kind, configuration = Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig
    else:
        eyes |= {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
        kind, configuration = Qwen2VLForConditionalGeneration, Qwen2VLConfig
    config = configuration(
        text_config=text,
        vision_config=eyes,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=tie,
    )
    torch.manual_seed(seed)
    model = kind(config)
    return draw_weights(model, PAD, tie)


@dataclass
class Row:
    """One prompt: `ids [T]` with placeholders, its pictures' and videos' patches and grids, `labels [T]`."""

    ids: Tensor
    labels: Tensor
    pixels: dict[str, Tensor]
    grids: dict[str, Tensor]

    def ending(self, ids: Tensor) -> Row:
        """The row with more words after it."""
        labels = torch.cat([self.labels, torch.full_like(ids, -100)])
        return Row(torch.cat([self.ids, ids]), labels, self.pixels, self.grids)


def make_row(*media: tuple[int, int, int], text: int = 6, seed: int = 0, answer: int = 0) -> Row:
    """Words, then pictures `(1, h, w)` and videos `(t, h, w)`, sizes in visual tokens, then a question, an answer."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> list[int]:
        return torch.randint(3, END, (count,), generator=generator).tolist()

    ids = words(2)
    grids: dict[str, list[list[int]]] = {"image": [], "video": []}
    for frames, height, width in media:
        kind, token = ("image", IMAGE) if frames == 1 else ("video", VIDEO)
        ids += [START] + [token] * (frames * height * width) + [END] + words(1)
        grids[kind].append([frames, height * MERGE, width * MERGE])
    ids += words(text)
    labels = [-100] * len(ids)
    new = words(answer)
    found = {kind: torch.tensor(grid, dtype=torch.long).reshape(-1, 3) for kind, grid in grids.items()}
    patches = {kind: int(grid.prod(1).sum()) for kind, grid in found.items()}
    pixels = {kind: torch.randn(count, 6 * PATCH**2, generator=generator) for kind, count in patches.items()}
    return Row(torch.tensor(ids + new), torch.tensor(labels + new), pixels, found)


def collate(rows: list[Row], side: str = "left", labels: bool = False) -> dict[str, Tensor]:
    """Processor output of a padded batch."""
    batch = pad_text(rows, PAD, side, labels)
    ids = batch["input_ids"]
    batch["mm_token_type_ids"] = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    for kind, pixels, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        patches = torch.cat([row.pixels[kind] for row in rows])
        if len(patches):
            batch |= {pixels: patches, grid: torch.cat([row.grids[kind] for row in rows])}
    return batch


def mixed_rows(answer: int = 0) -> list[Row]:
    """Two pictures; none; a video and a picture of the same size; one token; a long strip."""
    media = [[(1, 3, 5), (1, 4, 4)], [], [(3, 3, 4), (1, 3, 4)], [(1, 1, 1)], [(1, 2, 9)]]
    return [make_row(*row, text=3 + 2 * seed, seed=seed, answer=answer) for seed, row in enumerate(media, 1)]
