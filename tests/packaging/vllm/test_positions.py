"""M-RoPE positions of shortened prompts equal those of the full prompt at the tokens that are left."""

from __future__ import annotations

import pytest
import torch

from duet_vllm import positions
from tests.tiny_qwen import IMAGE, VIDEO, collate, make_row, tiny_qwen

MEDIA = [(1, 3, 4), (1, 5, 2), (3, 2, 6)]


@pytest.fixture(scope="module")
def prompt():
    """Ids, and the stock model's positions `[3, N]` and step."""
    batch = collate([make_row(*MEDIA)])
    found, delta = tiny_qwen().model.get_rope_index(
        batch["input_ids"],
        mm_token_type_ids=batch["mm_token_type_ids"],
        image_grid_thw=batch["image_grid_thw"],
        video_grid_thw=batch["video_grid_thw"],
        second_per_grid_ts=torch.tensor([1.0]),
        attention_mask=batch["attention_mask"],
    )
    return batch["input_ids"][0], found[:, 0], int(delta)


@pytest.mark.parametrize("chunk", [0, 12, 25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_survivors_and_words_keep_their_positions(prompt, chunk, dtype):
    ids, full, delta = prompt
    visual = (ids == IMAGE) | (ids == VIDEO)
    torch.manual_seed(0)
    keep = ~visual | (torch.rand(len(ids)) < 0.4)
    short, expected = ids[keep], full[:, keep]
    shown = visual[keep]
    starts = (shown & ~shown.roll(1)).nonzero().flatten().tolist()
    media, embeddings = [], []
    for (times, height, width), start in zip(MEDIA, starts, strict=True):
        length = int((~shown[start:]).nonzero()[0])
        step = 2 if times > 1 else 1
        # the test's video is wider than it is long in time, where vLLM and transformers agree
        media.append(positions.Medium(start, length, ((times - 1) * step + 1, height, width)))
        own = expected[:, start : start + length] - expected[:, start - 1 : start] - 1
        embeddings.append(positions.write(torch.zeros(length, 5, dtype=dtype), own))
    numbered, step = positions.number_text(len(short), media)
    assert torch.equal(numbered[:, ~shown], expected[:, ~shown])
    assert len(short) + step == len(ids) + delta
    pairs = [positions.read(one) for one in embeddings]
    assert all(features.shape[1] == 5 for features, _ in pairs)
    # a prompt may be prefilled in pieces
    first = [(where, at) for medium, (_, where) in zip(media, pairs, strict=True) for at in [medium.offset]]
    for begin, end in ((0, chunk), (chunk, len(short))):
        found = [where[:, max(begin - at, 0) : max(end - at, 0)] for where, at in first]
        numbered = positions.place(numbered, shown, [one for one in found if one.shape[1]], begin)
    assert torch.equal(numbered, expected)


def test_large_grids_survive_half_precision():
    where = torch.tensor([[0, 700, 16_000], [255, 129, 3], [1, 128, 999]])
    _, read = positions.read(positions.write(torch.zeros(3, 2, dtype=torch.bfloat16), where))
    assert torch.equal(read, where)
