"""Load Video-LLaVA from either checkpoint layout: `load(path_or_id) -> (model, processor)`.

The model is a stock `VideoLlavaForConditionalGeneration` with nothing attached; the processor needs no torchvision (see
`duet/videollava/processing.py`). Every weight must come from the checkpoint, as with LLaVA.

    model, processor = load("LanguageBind/Video-LLaVA-7B-hf")          # Hugging Face layout, hub id
    model, processor = load("checkpoints/Video-LLaVA-7B")              # original layout, local folder

`load_pretrained_model` is the original project's entry point, with the same arguments and four results.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import VideoLlavaConfig, VideoLlavaForConditionalGeneration

from duet.checkpoints.assemble import CONTEXT_LENGTH, Parts, assemble, original_options
from duet.checkpoints.files import CheckpointError, read_tensors, resolve_folder, weight_files
from duet.checkpoints.options import OriginalOptions, check_options
from duet.checkpoints.original import (
    clip_vision,
    float_dtype,
    grow_vocabulary,
    new_projector,
    read_tokenizer,
    read_tower,
    tower_folder,
)
from duet.checkpoints.partial import language_model, read_original
from duet.checkpoints.sanity import read_config, read_generation
from duet.files import blame
from duet.videollava.model import original
from duet.videollava.processing import IMAGE, VIDEO, VideoLlavaProcessorPil, hf_processor, original_processor

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase
    from typing_extensions import Unpack


#: Entries that Video-LLaVA's training writes into the config.json of a language model.
NEW = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_use_im_start_end": False,
    "image_aspect_ratio": "pad",
}


class VideoLlavaOptions(OriginalOptions, total=False):
    """Options of `load`.

    Attributes:
        image_tower: original layout: folder or hub id of the tower for pictures, instead of `mm_image_tower`. If the
            checkpoint has the weights, only the tower's config.json is read.
        video_tower: the same for videos; None: `image_tower` if given, else `mm_video_tower`.
    """

    image_tower: str | Path | None
    video_tower: str | Path | None


def load(
    path_or_id: str | Path, **options: Unpack[VideoLlavaOptions]
) -> tuple[VideoLlavaForConditionalGeneration, VideoLlavaProcessorPil]:
    """Model (in eval mode) and processor of a Video-LLaVA checkpoint.

    Args:
        path_or_id: local folder (nothing is downloaded) or hub id.
        options: see `VideoLlavaOptions`, `OriginalOptions` and `LoadOptions`.

    Raises:
        CheckpointError: not a Video-LLaVA checkpoint, incomplete or damaged; the message gives details.
        UserError: unknown option.
    """
    check_options(options, VideoLlavaOptions)
    folder = resolve_folder(path_or_id, revision=options.get("revision"))
    settings = read_config(folder)
    model_base, image_tower = options.get("model_base"), options.get("image_tower")
    given = {"image_tower": image_tower, "video_tower": options.get("video_tower") or image_tower}
    if original.is_original(settings):
        parts = _read_original(folder, settings, given, model_base)
    elif any(given.values()) or model_base is not None:
        raise CheckpointError(f"towers and model_base are for the original layout, which {folder} does not have")
    else:
        parts = _read_hf(folder, settings)
    return assemble(parts, folder, options), parts.processor


def load_pretrained_model(
    model_path: str,
    model_base: str | None = None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: str | dict[str, Any] = "auto",
    device: str = "cuda",
    use_flash_attn: bool = False,
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, VideoLlavaForConditionalGeneration, VideoLlavaProcessorPil, int]:
    """The original project's loader: `(tokenizer, model, processor, context_len)`, nothing attached.

    `visionzip.visionzip_video(model, ...)` then attaches both stages; `processor["image"]` and `processor["video"]`
    make pixels of pictures and frames, as in the original.

    Args:
        model_path: folder or hub id, either layout.
        model_base: language model under a projector-only or LoRA checkpoint.
        model_name: accepted for compatibility; config.json says what the model is.
        load_8bit, load_4bit, device_map, device, use_flash_attn, kwargs: see `original_options`.
    """
    options = original_options(load_8bit, load_4bit, device_map, device, use_flash_attn, kwargs)
    model, processor = load(model_path, model_base=model_base, **options)
    context_len = getattr(model.config, "max_sequence_length", CONTEXT_LENGTH)
    return processor.tokenizer, model, processor, context_len


def _read_hf(folder: Path, settings: dict[str, Any]) -> Parts:
    if settings.get("model_type") != "video_llava" or "vision_config" not in settings:
        raise CheckpointError(
            f"{folder} holds a model of type {settings.get('model_type')!r}; supported are Video-LLaVA in the Hugging "
            "Face layout (video_llava) and in the original one (with mm_image_tower and mm_video_tower)"
        )
    read_config(folder, "text_config", "vision_config")
    with blame(folder / "config.json", CheckpointError):
        config = VideoLlavaConfig.from_pretrained(folder)
    return Parts(
        VideoLlavaForConditionalGeneration,
        config,
        read_tensors(weight_files(folder)),
        hf_processor(folder, config),
        read_generation(folder),
    )


def assemble_new(
    base: Path,
    tower: str | Path,
    *,
    video_tower: str | Path | None = None,
    kind: str = "video_llava",
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> tuple[VideoLlavaForConditionalGeneration, VideoLlavaProcessorPil]:
    """A Video-LLaVA from a language model and two LanguageBind towers, with a new projector.

    Args:
        base: folder of a LLaMA.
        tower, video_tower: folders or hub ids of the towers for pictures and for videos.
        kind: `video_llava`.
        seed: of the new weights.
        dtype: of all weights; None: the language model's.

    Raises:
        CheckpointError: one of them is not of its kind, incomplete or damaged.
    """
    if video_tower is None:
        raise CheckpointError("a Video-LLaVA has two towers: name that for videos, too (video_tower, --video-tower)")
    given: dict[str, str | Path | None] = {"image_tower": tower, "video_tower": video_tower}
    settings = {**read_config(base), **NEW, **{f"mm_{name}": str(value) for name, value in given.items()}}
    settings["model_type"] = "llava"
    tensors = read_tensors(weight_files(base))
    own = float_dtype(tensors)
    width = clip_vision(read_config(resolve_folder(tower, weights=False)))["hidden_size"]
    tensors |= new_projector(width, settings["hidden_size"], own, seed)
    parts = _original_parts(base, base, settings, given, tensors)
    return assemble(parts, base, {"dtype": dtype or own, "device": "cpu"}), parts.processor


def _read_original(
    folder: Path, settings: dict[str, Any], given: dict[str, str | Path | None], model_base: str | Path | None
) -> Parts:
    model_base = language_model(folder, model_base)
    base = folder if model_base is None else resolve_folder(model_base)
    tensors = read_original(folder, None if model_base is None else base)
    return _original_parts(folder, base, settings, given, tensors)


def _original_parts(
    folder: Path,
    base: Path,
    settings: dict[str, Any],
    given: dict[str, str | Path | None],
    tensors: dict[str, Tensor],
) -> Parts:
    """The parts of a checkpoint with original names; its tensors are changed."""
    towers = _read_towers(folder, settings, given, tensors)
    tokenizer = read_tokenizer(base, [IMAGE, VIDEO])
    vocabulary = tokenizer.get_vocab()
    with blame(folder / "config.json", CheckpointError):
        config = original.to_hf_config(settings, towers, vocabulary[IMAGE], vocabulary[VIDEO])
    grow_vocabulary(tensors, config.get_text_config().vocab_size)
    processor = original_processor(tokenizer, config, folder)
    renamed = {original.to_hf_name(name): tensor for name, tensor in tensors.items()}
    return Parts(VideoLlavaForConditionalGeneration, config, renamed, processor, shown_name=original.to_original_name)


def _read_towers(
    folder: Path, settings: dict[str, Any], given: dict[str, str | Path | None], tensors: dict[str, Tensor]
) -> dict[str, dict[str, Any]]:
    """config.json of each tower; weights missing from the checkpoint are added to `tensors`."""
    towers = {}
    for name, prefix in original.TOWER_PREFIXES.items():
        inside = any(key.startswith(prefix) for key in tensors)
        place = tower_folder(settings[f"mm_{name}"], folder, given[name], weights=not inside, option=name)
        if not inside:
            tensors |= read_tower(place, prefix)
        towers[name] = read_config(place)
    return towers
