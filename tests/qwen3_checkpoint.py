"""A small Qwen3-VL checkpoint as the hub has them: random weights, the golden Qwen2.5-VL's tokenizer and template."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import golden_qwen
from tests.tiny_qwen import MERGE, PATCH
from tests.tiny_qwen3 import tiny_qwen3

TOKENIZER = golden_qwen.FOLDER / "weights_hf"
TOKENS = {
    "vocab_size": 512,
    "image_token_id": 505,
    "video_token_id": 506,
    "vision_start_token_id": 507,
    "vision_end_token_id": 508,
}
_KEPT: list[TemporaryDirectory[str]] = []


def save(folder: Path) -> Path:
    """Write the checkpoint; pictures are seen in tokens of 8 x 8 pixels."""
    tiny_qwen3(tokens=TOKENS).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_bytes((TOKENIZER / name).read_bytes())
    common = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    common |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    pictures = {**common, "size": {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}}
    pictures |= {"image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor"}
    videos = {**common, "size": {"shortest_edge": 16 * 16, "longest_edge": 6 * 32 * 24}}
    videos |= {"video_processor_type": "Qwen3VLVideoProcessor", "processor_class": "Qwen3VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures), encoding="utf-8")
    (folder / "video_preprocessor_config.json").write_text(json.dumps(videos), encoding="utf-8")
    return folder


@cache
def saved() -> Path:
    """The checkpoint, written once."""
    _KEPT.append(TemporaryDirectory(prefix="qwen3-"))
    return save(Path(_KEPT[0].name))
