"""Counts of a recipe's data, of every family, against what its dataset makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from duet.config import build
from duet.data.dataset import ConversationDataset
from duet.data.rows import read_rows
from duet.families import find_asking
from duet.loading import load_stock
from duet.train.arguments import Recipe
from duet.train.survey import Surveyor
from tests.golden_llava import FOLDER as LLAVA
from tests.golden_qwen import FOLDER as QWEN
from tests.golden_video import HF as VIDEO_LLAVA
from tests.llava_next_checkpoints import save_hf, save_original
from tests.small_video import write_video


def write_rows(folder: Path, videos: bool) -> Path:
    for name, size in (("a.png", (300, 120)), ("b.png", (90, 200))):
        Image.radial_gradient("L").resize(size).convert("RGB").save(folder / name)
    write_video(folder / "a.mp4")
    media: list[tuple[str, dict[str, Any]]] = [
        ("", {}),
        ("<image>\n", {"image": "a.png"}),
        ("<image><image>\n", {"image": ["a.png", "b.png"]}),
    ]
    media += [("<video><image>\n", {"video": "a.mp4", "image": "b.png"})] if videos else []
    rows = [
        {**files, "conversations": [{"from": "human", "value": f"{marks}what?"}, {"from": "gpt", "value": "it is red"}]}
        for marks, files in media
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder / "rows.json"


def recipe(folder: Path, model: Path, **fields: Any) -> Recipe:
    data = {"data_path": str(folder / "rows.json"), "image_folder": str(folder)}
    training = {"output_dir": str(folder / "out"), "model_max_length": 8000, "use_cpu": True}
    return build(Recipe, {"model": {"model_name_or_path": str(model), **fields}, "data": data, "training": training})


@pytest.mark.parametrize(
    ("model", "videos"),
    [(LLAVA / "weights_hf", False), (VIDEO_LLAVA, True), (QWEN / "weights_hf", True)],
    ids=["llava", "video_llava", "qwen2_5_vl"],
)
def test_tokens_are_those_of_the_examples(model: Path, videos: bool, tmp_path: Path) -> None:
    write_rows(tmp_path, videos)
    chosen = recipe(tmp_path, model)
    found = Surveyor(chosen, cache=tmp_path / "cache").survey({"all tokens": None})
    assert not found.faults
    loaded, processor = load_stock(str(model))
    dataset = ConversationDataset(read_rows(tmp_path / "rows.json"), find_asking(loaded, processor), tmp_path)
    dataset.max_length = 8000
    visual = [getattr(processor, name, None) for name in ("image_token_id", "video_token_id")]
    examples = [dataset[place] for place in range(len(dataset))]
    counted = [sum(token in visual for token in example["input_ids"].tolist()) for example in examples]
    frames = 9 if model == VIDEO_LLAVA else 0  # whose CLS is dropped with compression and not counted as a patch
    assert found.learned == sum(int((example["labels"] != -100).sum()) for example in examples)
    assert found.text == sum(len(example["input_ids"]) for example in examples) - sum(counted)
    assert abs(found.visual - sum(counted)) <= frames
    assert found.text_only == 1 and found.rows == len(examples)


def test_an_original_folder_and_its_tower(tmp_path: Path) -> None:
    write_rows(tmp_path, False)
    chosen = recipe(tmp_path, LLAVA / "weights_original", vision_tower=str(LLAVA / "clip_tiny"))
    found = Surveyor(chosen, cache=tmp_path / "cache").survey({"all tokens": None})
    assert found.visual == 3 * 576
    assert found.parts["decoder"][0] == found.parts["decoder"][1] > 0


@pytest.mark.parametrize("assembled", [False, True])
def test_llava_next_of_the_original_layout_is_counted_as_in_the_stock_one(assembled: bool, tmp_path: Path) -> None:
    """Also one that is going to be assembled from a language model and a tower."""
    write_rows(tmp_path, False)
    stock = Surveyor(recipe(tmp_path, save_hf(tmp_path / "hf")), cache=tmp_path / "cache").survey({"all tokens": None})
    folder = save_original(tmp_path / "original")
    more = {"vision_tower": str(LLAVA / "clip_tiny")} if assembled else {}
    if assembled:
        settings = json.loads((folder / "config.json").read_text())
        plain = {name: value for name, value in settings.items() if not name.startswith(("mm_", "image_"))}
        (folder / "config.json").write_text(json.dumps({**plain, "model_type": "llama"}))
        more["kind"] = "llava_next"
    found = Surveyor(recipe(tmp_path, folder, **more), cache=tmp_path / "cache").survey({"all tokens": None})
    assert found.visual == stock.visual > 3 * 576
    assert (found.rows, found.learned, found.faults) == (stock.rows, stock.learned, [])
