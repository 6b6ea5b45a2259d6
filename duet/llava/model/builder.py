"""Load LLaVA-1.5 or LLaVA-NeXT from either checkpoint layout: `load(path_or_id) -> (model, processor)`.

The model is a stock `LlavaForConditionalGeneration` or `LlavaNextForConditionalGeneration` with nothing attached, the
processor a stock `LlavaProcessor` or `LlavaNextProcessor`. Both layouts are loaded the same way: tensors by name and a
config go to `from_pretrained`, followed by a check that every weight came from the checkpoint. Missing, unexpected or
wrongly shaped weights are an error that lists them.

    model, processor = load("llava-hf/llava-1.5-7b-hf")                # Hugging Face layout, hub id
    model, processor = load("checkpoints/llava-v1.6-mistral-7b")       # original layout, local folder

`load_pretrained_model` is the original project's entry point, with the same arguments and four results.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

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
from duet.llava.model import original
from duet.llava.processing import hf_processor, original_processor
from duet.llava.prompts import IMAGE, TURN_END

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlavaNextProcessor, LlavaProcessor, PreTrainedTokenizerBase
    from transformers.image_processing_utils import BaseImageProcessor
    from typing_extensions import Unpack

    Model = LlavaForConditionalGeneration | LlavaNextForConditionalGeneration

CONFIGS: dict[str, Any] = {"llava": LlavaConfig, "llava_next": LlavaNextConfig}
MODELS: dict[str, Any] = {"llava": LlavaForConditionalGeneration, "llava_next": LlavaNextForConditionalGeneration}


#: Entries that LLaVA's training writes into the config.json of a language model (v1.5; v1.6).
NEW = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_use_im_start_end": False,
    "image_aspect_ratio": "pad",
}
NEW_TILED = {
    **NEW,
    "mm_patch_merge_type": "spatial_unpad",
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
}


class LlavaOptions(OriginalOptions, total=False):
    """Options of `load`.

    Attributes:
        image_aspect_ratio: `pad` (square of the mean colour, as in LLaVA-1.5's training) or `crop` (as in CLIP); None:
            the checkpoint's. LLaVA-NeXT has only `anyres`.
        vision_tower: original layout: folder or hub id of the CLIP tower, instead of `mm_vision_tower`.
    """

    image_aspect_ratio: str | None
    vision_tower: str | Path | None


def load(path_or_id: str | Path, **options: Unpack[LlavaOptions]) -> tuple[Model, LlavaProcessor | LlavaNextProcessor]:
    """Model (in eval mode) and processor of a LLaVA-1.5 or LLaVA-NeXT checkpoint.

    Args:
        path_or_id: local folder (nothing is downloaded) or hub id.
        options: see `LlavaOptions`, `OriginalOptions` and `LoadOptions`.

    Raises:
        CheckpointError: not a LLaVA checkpoint, incomplete or damaged; the message gives details.
        UserError: unknown option.
    """
    check_options(options, LlavaOptions)
    folder = resolve_folder(path_or_id, revision=options.get("revision"))
    settings = read_config(folder)
    if original.is_original(settings):
        parts = _read_original(folder, settings, options)
    elif options.get("vision_tower") is not None or options.get("model_base") is not None:
        raise CheckpointError(f"vision_tower and model_base are for the original layout, which {folder} does not have")
    else:
        parts = _read_hf(folder, settings, options.get("image_aspect_ratio"))
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
) -> tuple[PreTrainedTokenizerBase, Model, BaseImageProcessor, int]:
    """The original project's loader: `(tokenizer, model, image_processor, context_len)`, nothing attached.

    `visionzip.visionzip(model, ...)` then attaches both stages.

    Args:
        model_path: folder or hub id, either layout.
        model_base: language model under a projector-only or LoRA checkpoint.
        model_name: accepted for compatibility; config.json says what the model is.
        load_8bit, load_4bit, device_map, device, use_flash_attn, kwargs: see `original_options`.
    """
    options = original_options(load_8bit, load_4bit, device_map, device, use_flash_attn, kwargs)
    model, processor = load(model_path, model_base=model_base, **options)
    context_len = getattr(model.config, "max_sequence_length", CONTEXT_LENGTH)
    return processor.tokenizer, model, processor.image_processor, context_len


def _read_hf(folder: Path, settings: dict[str, Any], aspect_ratio: str | None) -> Parts:
    family = settings.get("model_type")
    if family not in CONFIGS or "vision_config" not in settings:
        raise CheckpointError(
            f"{folder} holds a model of type {family!r}; supported are LLaVA-1.5 and LLaVA-NeXT in the Hugging Face "
            "layout (llava, llava_next) and in the original one (llava, llava_llama or llava_mistral, with "
            "mm_vision_tower)"
        )
    read_config(folder, "text_config", "vision_config")
    with blame(folder / "config.json", CheckpointError):
        config = CONFIGS[family].from_pretrained(folder)
    return Parts(
        MODELS[family],
        config,
        read_tensors(weight_files(folder)),
        hf_processor(folder, aspect_ratio, config),
        read_generation(folder),
    )


def assemble_new(
    base: Path, tower: str | Path, *, kind: str, seed: int = 0, dtype: torch.dtype | None = None, **towers: Any
) -> tuple[Model, LlavaProcessor | LlavaNextProcessor]:
    """A LLaVA from a language model and a CLIP tower, with a new projector (and newline), as LLaVA's training starts.

    Args:
        base: folder of a LLaMA or Mistral.
        tower: folder or hub id.
        kind: `llava` or `llava_next`.
        seed: of the new weights.
        dtype: of all weights; None: the language model's.
        towers: nothing; Video-LLaVA has two.

    Raises:
        CheckpointError: one of the two is not of its kind, incomplete or damaged.
    """
    folder = resolve_folder(tower)
    settings = new_settings(read_config(base), kind, str(folder))
    tensors = read_tensors(weight_files(base))
    width, own = settings["hidden_size"], float_dtype(tensors)
    tensors |= new_projector(clip_vision(read_config(folder))["hidden_size"], width, own, seed)
    if kind == "llava_next":
        drawn = torch.randn(width, generator=torch.Generator().manual_seed(seed))
        tensors["model.image_newline"] = (drawn / width**0.5).to(own)
    parts = _original_parts(base, base, settings, tensors, {"vision_tower": folder})
    return assemble(parts, base, {"dtype": dtype or own, "device": "cpu"}), parts.processor


def _read_original(folder: Path, settings: dict[str, Any], options: LlavaOptions) -> Parts:
    model_base = language_model(folder, options.get("model_base"))
    base = folder if model_base is None else resolve_folder(model_base)
    tensors = read_original(folder, None if model_base is None else base)
    return _original_parts(folder, base, settings, tensors, options)


def _original_parts(
    folder: Path, base: Path, settings: dict[str, Any], tensors: dict[str, Tensor], options: LlavaOptions
) -> Parts:
    """The parts of a checkpoint with original names.

    Args:
        folder: of the checkpoint.
        base: has the tokenizer.
        settings: config.json of the checkpoint.
        tensors: language model and projector, maybe the tower; changed.
        options: of `load`.
    """
    inside = any(name.startswith(original.TOWER_PREFIX) for name in tensors)
    tower = tower_folder(settings["mm_vision_tower"], folder, options.get("vision_tower"), weights=not inside)
    if not inside:
        tensors |= read_tower(tower, original.TOWER_PREFIX)
    config, processor = _original_config(folder, base, settings, tower, options.get("image_aspect_ratio"))
    grow_vocabulary(tensors, config.get_text_config().vocab_size)
    renamed = {original.to_hf_name(name): tensor for name, tensor in tensors.items()}
    return Parts(MODELS[config.model_type], config, renamed, processor, shown_name=original.to_original_name)


def _original_config(
    folder: Path, base: Path, settings: dict[str, Any], tower: Path, aspect_ratio: str | None
) -> tuple[LlavaConfig | LlavaNextConfig, LlavaProcessor | LlavaNextProcessor]:
    """Stock configuration and processor of original settings; arguments as of `_original_parts`."""
    tokenizer = read_tokenizer(base, [IMAGE])
    vocabulary = tokenizer.get_vocab()
    ends = [vocabulary[token] for token in TURN_END if token in vocabulary]
    with blame(folder / "config.json", CheckpointError):
        config = original.to_hf_config(settings, read_config(tower), vocabulary[IMAGE], ends)
    said = {"pad": "pad", "anyres": "anyres"}.get(str(settings.get("image_aspect_ratio")), "crop")
    return config, original_processor(tokenizer, [tower, folder], aspect_ratio or said, config)


def describe(
    folder: Path, *, kind: str | None = None, tower: str | Path | None = None, base: str | Path | None = None
) -> tuple[LlavaConfig | LlavaNextConfig, LlavaProcessor | LlavaNextProcessor]:
    """Stock configuration and processor of an original checkpoint, or of a new model; no weights are read.

    Args:
        folder: of the checkpoint; of the language model, if `kind` is given.
        kind: `llava` or `llava_next`, what is to be assembled.
        tower: folder or hub id, instead of the one that the checkpoint names.
        base: folder or hub id with the tokenizer of a checkpoint that has none.

    Raises:
        CheckpointError: incomplete, or of a form that transformers' classes cannot express.
    """
    settings = read_config(folder)
    if kind is not None:
        settings = new_settings(settings, kind, str(tower))
    eyes = tower_folder(settings["mm_vision_tower"], folder, tower, weights=False)
    words = folder if base is None else resolve_folder(base, weights=False)
    return _original_config(folder, words, settings, eyes, None)


def new_settings(language_model: dict[str, Any], kind: str, tower: str) -> dict[str, Any]:
    """An original config.json for a language model with a tower before it; `kind` is `llava` or `llava_next`."""
    new = {**language_model, **(NEW_TILED if kind == "llava_next" else NEW), "mm_vision_tower": tower}
    return {**new, "model_type": f"llava_{language_model['model_type']}"}
