"""The three snippets of the original's README as printed, with tiny local checkpoints instead of hub names.

Each continues as its reader would: pixels, prompt, `generate`, `decode`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import duet
from tests import golden_qwen, golden_video
from tests.llava_checkpoints import HF, ORIGINAL

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8))
CLIP = np.random.default_rng(1).integers(0, 255, (8, 60, 90, 3), dtype=np.uint8)

LLAVA = """
from duet.llava.model.builder import load_pretrained_model
from duet.visionzip import visionzip

tokenizer, model, image_processor, context_len = load_pretrained_model(
    model_path="liuhaotian/llava-v1.5-7b",
    model_base=None,
    model_name="llava-v1.5-7b"
)

# Apply VisionZip (Stage 1: patches CLIP encoder)
model = visionzip(model, dominant=170, contextual=35, cluster_width=4)

# PyramidDrop (Stage 2) is integrated in the model forward pass
"""
VIDEO_LLAVA = """
from duet.videollava.model.builder import load_pretrained_model
from duet.visionzip import visionzip_video

tokenizer, model, processor, context_len = load_pretrained_model(
    model_path="LanguageBind/Video-LLaVA-7B",
    model_base=None,
    model_name="Video-LLaVA-7B"
)

# Apply VisionZip for Video-LLaVA (patches LanguageBind towers)
model = visionzip_video(model, dominant=170, contextual=35, cluster_width=4)
"""
QWEN = """
from duet.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from transformers import AutoProcessor
import torch

model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
    "Qwen/Qwen2.5-VL-7B-Instruct",
    torch_dtype=torch.bfloat16,
    device_map="auto"
)
"""
QWEN_PROCESSOR = 'processor = AutoProcessor.from_pretrained("Qwen/Qwen2.5-VL-7B-Instruct")\n'
QWEN_CONFIGURE = """
# Configure DUET (VisionZip + PyramidDrop)
model.configure_duet(
    visionzip_enabled=True,
    dominant_tokens=170,
    contextual_tokens=35,
    pdrop_enabled=True,
    layer_list=[14, 21],
    ratio_list=[0.5, 0.25]
)
"""


def run(snippet: str, path: Any, **given: Any) -> dict[str, Any]:
    """The variables of the snippet, with its hub id replaced by a path."""
    for name in ("liuhaotian/llava-v1.5-7b", "LanguageBind/Video-LLaVA-7B", "Qwen/Qwen2.5-VL-7B-Instruct"):
        snippet = snippet.replace(f'"{name}"', repr(str(path)))
    exec(snippet, given)
    return given


def on(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return pixels.to(model.device, model.dtype)


@pytest.mark.parametrize("layout", [HF, ORIGINAL], ids=["hf", "original"])
def test_llava(layout):
    found = run(LLAVA, layout)
    model, tokenizer = found["model"], found["tokenizer"]
    pixels = found["image_processor"].preprocess(PICTURE, return_tensors="pt")["pixel_values"]
    prompt = "USER: " + "<image>" * 576 + "\nwhat is it? ASSISTANT:"
    batch = tokenizer(prompt, return_tensors="pt").to(model.device)
    with duet.record(model) as trace:
        out = model.generate(**batch, pixel_values=on(model, pixels), max_new_tokens=3, do_sample=False)
    assert (trace.entered, [len(stage.kept[0]) for stage in trace.stages]) == ([205], [102, 0])
    assert isinstance(tokenizer.decode(out[0, batch["input_ids"].shape[1] :], skip_special_tokens=True), str)


def test_video_llava():
    found = run(VIDEO_LLAVA, golden_video.HF)
    model, tokenizer, processor = found["model"], found["tokenizer"], found["processor"]
    pixels = processor["video"](CLIP, return_tensors="pt")["pixel_values_videos"]
    prompt = "USER: " + "<video>" * (8 * 257) + "\nwhat happens? ASSISTANT:"
    batch = tokenizer(prompt, return_tensors="pt").to(model.device)
    with duet.record(model) as trace:
        out = model.generate(**batch, pixel_values_videos=on(model, pixels), max_new_tokens=3, do_sample=False)
    assert (trace.entered, [len(stage.kept[0]) for stage in trace.stages]) == ([8 * 205], [4 * 205, 0])
    assert isinstance(tokenizer.decode(out[0, batch["input_ids"].shape[1] :], skip_special_tokens=True), str)


@pytest.mark.parametrize("spelling", ["ratio_list", "image_token_ratio_list"])
def test_qwen(spelling):
    path = golden_qwen.FOLDER / "weights_hf"
    found = run(QWEN + QWEN_CONFIGURE.replace("ratio_list", spelling), path)
    if find_spec("torchvision"):
        processor = run(QWEN + QWEN_PROCESSOR, path)["processor"]
    else:  # transformers' own one wants torchvision for its videos
        with pytest.raises(ImportError, match=r"(?i)torchvision"):
            run(QWEN + QWEN_PROCESSOR, path)
        _, processor = duet.load(str(path))
    model = found["model"]
    assert model.dtype == torch.bfloat16
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    batch = processor(text=[text], images=[PICTURE.resize((560, 420))], return_tensors="pt").to(model.device)
    with duet.record(model) as trace:
        out = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert (trace.entered, [len(stage.kept[0]) for stage in trace.stages]) == ([205], [102, 51])
    new = out[:, batch["input_ids"].shape[1] :]
    assert len(processor.batch_decode(new, skip_special_tokens=True)) == 1
