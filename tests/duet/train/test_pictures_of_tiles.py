"""LLaVA-NeXT's held-out rows, whose pictures have different numbers of tiles."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from duet.data.collate import join_pixels
from duet.data.dataset import ConversationDataset
from duet.data.rows import Row
from duet.families import find_asking
from duet.llava.model.builder import load
from duet.train.heldout import ExactAnswers
from tests.llava_next_checkpoints import save_original


def test_they_are_answered_in_one_batch(tmp_path: Path) -> None:
    model, processor = load(save_original(tmp_path))
    for name, size in (("two", (640, 300)), ("five", (660, 660))):
        Image.radial_gradient("L").resize(size).convert("RGB").save(tmp_path / f"{name}.png")
    rows = [Row(name, (f"{name}.png",), (("<image>\nWhat?", "A ring"),)) for name in ("two", "five")]
    dataset = ConversationDataset(rows, find_asking(model, processor), tmp_path, max_length=8000)
    assert dataset[0]["pixel_values"].shape[1] != dataset[1]["pixel_values"].shape[1]
    scores = ExactAnswers(dataset, 2)(model)
    assert set(scores) == {"accuracy/all", "accuracy/mean"}


def test_the_times_of_frames_may_be_lists() -> None:
    """As Qwen's processor hands them out."""
    assert join_pixels("second_per_grid_ts", [[0.5], [1.0, 2.0]]).tolist() == [0.5, 1.0, 2.0]


def test_videos_are_not_filled_up_with_black_frames() -> None:
    short, long = torch.ones(1, 2, 3, 4, 4), torch.ones(1, 3, 3, 4, 4)
    assert join_pixels("pixel_values", [short, long]).shape == (2, 3, 3, 4, 4)
    try:
        join_pixels("pixel_values_videos", [short, long])
    except RuntimeError:
        return
    raise AssertionError("joined")
