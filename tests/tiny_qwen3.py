"""A tiny random Qwen3-VL with DeepStack, and prompts: pictures of any size, videos with the times of their frames."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from duet.budget import Budget
from tests.tiny_parts import draw_weights
from tests.tiny_qwen import END, IMAGE, MERGE, PAD, PATCH, START, VIDEO, VOCAB, Row, collate

__all__ = ["BUDGET", "DEEP", "collate", "make_row", "mixed_rows", "tiny_qwen3"]

#: Blocks of the tower whose features are added after the first decoder layers.
DEEP = [0, 2, 3]
LAYERS = 6
#: As in `tests.tiny_qwen`; the first drop is where features are still to be added.
BUDGET = Budget(dominant=4, contextual=2, cluster_width=2, layers=(2, 4), ratios=(0.6, 0.25))


def tiny_qwen3(tie: bool = False, layers: int = LAYERS, seed: int = 0, tokens: dict[str, int] | None = None) -> Any:
    """In float32 and eval mode: tower of 5 x 32, decoder of 6 x 32 whose heads are wider than a share of it.

    Args:
        tie: one matrix for embeddings and head, as in the 2B and 4B models.
        layers: of the decoder.
        seed: of the weights.
        tokens: `vocab_size` and the ids of special tokens of another vocabulary.
    """
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    tokens = tokens or {"vocab_size": VOCAB, **dict(zip(names, (IMAGE, VIDEO, START, END), strict=True))}
    text = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "vocab_size": tokens["vocab_size"],
        "max_position_embeddings": 512,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [2, 2, 2],
            "mrope_interleaved": True,
        },
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": PAD,
    }
    eyes = {
        "depth": 5,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": DEEP,
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=eyes,
        tie_word_embeddings=tie,
        **{name: tokens[name] for name in names},
    )
    torch.manual_seed(seed)
    model = draw_weights(Qwen3VLForConditionalGeneration(config), PAD, tie)
    with torch.no_grad():
        # drawn with the embeddings, and then the pixels would not matter
        model.model.visual.pos_embed.weight.mul_(0.3)
        for name, weight in model.named_parameters():
            if "q_norm" in name or "k_norm" in name:
                weight.copy_(torch.linspace(0.5, 2, len(weight)))
    return model


def make_row(*media: tuple[int, int, int], text: int = 6, seed: int = 0, answer: int = 0) -> Row:
    """Words, then pictures `(1, h, w)` and videos `(t, h, w)` in visual tokens, then a question, an answer.

    A time, here two words, comes before each frame of a video.
    """
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> list[int]:
        return torch.randint(3, END, (count,), generator=generator).tolist()

    ids = words(2)
    grids: dict[str, list[list[int]]] = {"image": [], "video": []}
    for frames, height, width in media:
        kind, token = ("image", IMAGE) if frames == 1 else ("video", VIDEO)
        for _ in range(frames):
            ids += (words(2) if frames > 1 else []) + [START] + [token] * (height * width) + [END]
        ids += words(1)
        grids[kind].append([frames, height * MERGE, width * MERGE])
    ids += words(text)
    labels = [-100] * len(ids)
    new = words(answer)
    found = {kind: torch.tensor(grid, dtype=torch.long).reshape(-1, 3) for kind, grid in grids.items()}
    patches = {kind: int(grid.prod(1).sum()) for kind, grid in found.items()}
    pixels = {kind: torch.randn(count, 6 * PATCH**2, generator=generator) for kind, count in patches.items()}
    return Row(torch.tensor(ids + new), torch.tensor(labels + new), pixels, found)


def mixed_rows(answer: int = 0) -> list[Row]:
    """Two pictures; none; a video and a picture of the same size; one token; a long strip."""
    media = [[(1, 3, 5), (1, 4, 4)], [], [(3, 3, 4), (1, 3, 4)], [(1, 1, 1)], [(1, 2, 9)]]
    return [make_row(*row, text=3 + 2 * seed, seed=seed, answer=answer) for seed, row in enumerate(media, 1)]
