"""A checkpoint of each family that vLLM serves on a CPU, whose attention wants heads of 32 and more."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from tests import golden_qwen
from tests.tiny_parts import draw_weights

ROOT = Path(__file__).parents[3]
LLAVA = ROOT / "playground" / "mini" / "checkpoints" / "llava-mini"
#: Heights and widths of enlarged pictures.
PINPOINTS = [[80, 160], [160, 80], [160, 160]]
COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def save(family: str, folder: Path) -> Path:
    """Write a family's checkpoint (`llava`, `llava_next`, `qwen2_5_vl`)."""
    folder.mkdir()
    {"llava": _save_llava, "llava_next": _save_next, "qwen2_5_vl": _save_qwen}[family](folder)
    return folder


def _copy(source: Path, folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes((source / name).read_bytes())


def _save_llava(folder: Path) -> None:
    _copy(LLAVA, folder, *COPIED, "processor_config.json", "config.json", "model.safetensors")


def _save_next(folder: Path) -> None:
    """The small world's LLaVA-1.5 with crops and a newline."""
    source = LlavaForConditionalGeneration.from_pretrained(LLAVA)
    config = LlavaNextConfig(
        vision_config=source.config.vision_config,
        text_config=source.config.text_config,
        image_token_index=source.config.image_token_index,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=100,
    )
    model = LlavaNextForConditionalGeneration(config)
    newline = torch.linspace(-1, 1, config.text_config.hidden_size)
    model.load_state_dict({**source.state_dict(), "model.image_newline": newline})
    model.save_pretrained(folder)
    _copy(LLAVA, folder, *COPIED)
    settings = json.loads((LLAVA / "processor_config.json").read_text())
    images = settings["image_processor"]
    images |= {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": PINPOINTS, "do_pad": True}
    settings |= {"processor_class": "LlavaNextProcessor", "image_processor": images}
    (folder / "processor_config.json").write_text(json.dumps(settings))


def _save_qwen(folder: Path) -> None:
    """Random weights; pictures are seen in tokens of 8 x 8 pixels."""
    text = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 512,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
        "bos_token_id": None,
        "eos_token_id": None,
    }
    eyes = {
        "depth": 4,
        "num_heads": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "out_hidden_size": 64,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 16,
        "fullatt_block_indexes": [1, 3],
        "tokens_per_second": 2,
    }
    marks = {"image_token_id": 505, "video_token_id": 506, "vision_start_token_id": 507, "vision_end_token_id": 508}
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=eyes, **marks))
    draw_weights(model, 0).save_pretrained(folder)
    source = golden_qwen.FOLDER / "weights_hf"
    _copy(source, folder, *COPIED)
    settings = json.loads((source / "preprocessor_config.json").read_text())
    settings |= {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    settings |= {"size": {"shortest_edge": 16 * 16, "longest_edge": 128 * 128}}
    for name in ("min_pixels", "max_pixels"):
        settings.pop(name, None)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Coloured rectangles on a ground."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*limits: int) -> list[int]:
        return [int(torch.randint(limit, (1,), generator=generator)) for limit in limits]

    made = Image.new("RGB", (width, height), tuple(drawn(256, 256, 256)))
    for _ in range(6):
        left, top, wide, high, *colour = drawn(width, height, width // 2, height // 2, 256, 256, 256)
        made.paste(tuple(colour), (left, top, left + wide + 2, top + high + 2))
    return made
