"""Prompts of LLaVA-1.5 and LLaVA-NeXT, and regions against the pixels that the processors make."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from duet.llava.anyres import lay_out
from duet.llava.asking import LlavaAsking
from duet.llava.next_asking import LlavaNextAsking
from duet.llava.prompts import vicuna_v1
from duet.report.canvas import make_canvas
from duet.text.placeholders import IMAGE
from duet.types import Region
from tests.tiny_llava_next import PATCH, PINPOINTS, SIDE, SIZE

MEAN = (0.2, 0.4, 0.6)
SETTINGS: dict[str, Any] = {
    "size": {"shortest_edge": SIZE},
    "crop_size": {"height": SIZE, "width": SIZE},
    "do_normalize": False,
    "image_mean": MEAN,
}
SIZES = [(130, 70), (60, 200), (112, 112), (300, 90)]


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards: a pixel says where it is."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((255 * np.stack([x, y, 0 * x], axis=-1)).astype(np.uint8))


def asking_of(kind: Any, images: Any, family: str = "llava", text: str = "llama", vocabulary: Any = ()) -> Any:
    config = SimpleNamespace(
        model_type=family,
        vision_config=SimpleNamespace(image_size=SIZE, patch_size=PATCH),
        image_grid_pinpoints=PINPOINTS,
        get_text_config=lambda: SimpleNamespace(model_type=text),
    )
    tokenizer = SimpleNamespace(get_vocab=lambda: dict.fromkeys(vocabulary, 0))
    return kind(config, SimpleNamespace(image_processor=images, tokenizer=tokenizer))


def patch_means(pixels: np.ndarray) -> np.ndarray:
    """`[rows * n, columns * n, 3]` with n = `PATCH` -> `[rows, columns, 3]`."""
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    return pixels.reshape(rows, PATCH, columns, PATCH, 3).mean((1, 3))


def shown(picture: Image.Image, region: Region) -> np.ndarray:
    return patch_means(make_canvas(picture, region, PATCH * max(region.grid)).seen)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padded", [True, False])
def test_squares_of_llava(size: tuple[int, int], padded: bool) -> None:
    images = LlavaImageProcessorPil(do_pad=padded, **SETTINGS)
    picture = gradient(*size)
    pixels = images([picture, picture], return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    regions = asking_of(LlavaAsking, images).regions({}, [picture, picture])
    assert [region.medium for region in regions] == [0, 1]
    for region, seen in zip(regions, pixels, strict=True):
        assert region.grid == (SIDE, SIDE)
        assert np.abs(shown(picture, region) - patch_means(seen)).max() < 0.05


@pytest.mark.parametrize("size", SIZES)
def test_crops_of_llava_next(size: tuple[int, int]) -> None:
    """Patch by patch what the processor cut out, in the order of the crops, the padding left out."""
    images = LlavaNextImageProcessorPil(image_grid_pinpoints=PINPOINTS, **SETTINGS)
    picture = gradient(*size)
    pixels = images(picture, return_tensors="np")["pixel_values"][0].transpose(0, 2, 3, 1)
    regions = asking_of(LlavaNextAsking, images, "llava_next").regions({}, [picture])
    layout = lay_out((size[1], size[0]), tuple(map(tuple, PINPOINTS)), SIZE, SIDE)
    assert len(regions) == len(layout.crops) > 1
    for region, crop in zip(regions, layout.crops, strict=True):
        seen = patch_means(pixels[crop.number])[
            crop.rows.start : crop.rows.stop, crop.columns.start : crop.columns.stop
        ]
        assert region.grid == seen.shape[:2]
        # the outermost patches hold a strip of padding
        inner = shown(picture, region)[1:-1, 1:-1] - seen[1:-1, 1:-1]
        assert not inner.size or np.abs(inner).max() < 0.05


def test_prompts() -> None:
    llava = asking_of(LlavaAsking, None)
    assert llava.prompt("why?", [IMAGE, IMAGE]) == vicuna_v1("<image>\n<image>\nwhy?")
    assert llava.prompt("Is <image> dark?", [IMAGE]) == vicuna_v1("Is <image> dark?")
    assert "curious human" in llava.prompt("why?", [], "llava_v1")
    vicuna = asking_of(LlavaNextAsking, None, "llava_next")
    assert vicuna.prompt("why?", [IMAGE], "vicuna_v1") == vicuna_v1("<image>\nwhy?")


def test_a_benchmark_does_not_change_the_language_of_the_model() -> None:
    mistral = asking_of(LlavaNextAsking, None, "llava_next", "mistral")
    assert mistral.conversation("vicuna_v1") == "mistral_instruct"
    assert mistral.prompt("why?", [IMAGE], "vicuna_v1") == "[INST] <image>\nwhy? [/INST]"
    llama_3 = asking_of(LlavaNextAsking, None, "llava_next", vocabulary=["<|eot_id|>"])
    assert llama_3.conversation("vicuna_v1") == "llava_llama_3"
