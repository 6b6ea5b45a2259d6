"""Check the small files of a checkpoint before anything is built from them.

A config.json of a few bytes can ask for any amount of memory: transformers replaces a missing part by its default, a
model of 7 billion parameters. And its classes raise all kinds of errors on odd values; here these become errors that
name the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig

from duet.checkpoints.files import CheckpointError, read_json
from duet.files import blame

if TYPE_CHECKING:
    from torch import Tensor

#: Largest sizes allowed in a config.json, far above those of real models.
_LAYERS, _SIZE, _PIXELS = 512, 2**22, 2**27
_LIMITS = {
    **dict.fromkeys(("num_hidden_layers", "depth"), _LAYERS),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads", "num_channels", "in_channels"), 2**12),
    **dict.fromkeys(("hidden_size", "intermediate_size", "embed_dim", "out_hidden_size", "head_dim"), _SIZE),
    **dict.fromkeys(("vocab_size",), _SIZE),
    **dict.fromkeys(("image_size", "patch_size", "temporal_patch_size", "spatial_merge_size", "window_size"), 2**13),
    **dict.fromkeys(("min_pixels", "max_pixels", "shortest_edge", "longest_edge", "height", "width"), _PIXELS),
}
#: Entries that may be null: the class has a rule for them.
_OPTIONAL = {"num_key_value_heads", "head_dim", "min_pixels", "max_pixels"}
#: Parameters that a config.json may ask for beyond those in the weights. More is an error at once, because missing
#: weights are first created at random before they can be listed.
_UNHELD = 50_000_000
#: Allowed values in a generation_config.json: (type, least, most).
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_GENERATION: dict[str, tuple[type, float, float]] = {
    **dict.fromkeys(("max_length", "max_new_tokens", "num_beams", "num_return_sequences"), (int, 1, 2**31)),
    **dict.fromkeys(("min_length", "min_new_tokens", "top_k", "no_repeat_ngram_size"), (int, 0, 2**31)),
    **dict.fromkeys(("temperature", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"), (float, 0, 1000)),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), (float, 1e-6, 1000)),
    **dict.fromkeys(("length_penalty", "diversity_penalty"), (float, -1000, 1000)),
    **dict.fromkeys(
        ("do_sample", "use_cache", "_from_model_config", "output_attentions", "output_hidden_states", "output_scores"),
        (bool, 0, 1),
    ),
    **dict.fromkeys(("output_logits", "renormalize_logits", "remove_invalid_values"), (bool, 0, 1)),
}


def read_config(folder: Path, *sections: str) -> dict[str, Any]:
    """config.json of a checkpoint, its sizes checked.

    Args:
        folder: the checkpoint's.
        sections: required sections.

    Raises:
        CheckpointError: it is missing, not a JSON object, lacks one of `sections`, or has an invalid size.
    """
    file = folder / "config.json"
    settings = read_json(file)
    if not isinstance(settings.get("model_type"), (str, type(None))):
        raise CheckpointError(f"{file} says model_type = {settings['model_type']!r}, which is not a name")
    for name in ("text_config", "vision_config"):
        if name in settings and not isinstance(settings[name], dict):
            raise CheckpointError(f"{file}: {name} is not a section: {str(settings[name])[:80]}")
    for name in sections:
        if not settings.get(name):
            raise CheckpointError(f"{file} has no {name}: it does not say how large that part of the model is")
    check_sizes(settings, file)
    if not isinstance(settings.get("image_grid_pinpoints"), str):
        check_pinpoints(settings.get("image_grid_pinpoints"), file)
    return settings


def check_pinpoints(grids: Any, file: object) -> None:
    """Check that LLaVA-NeXT's enlarged sizes are pairs of pixel counts that fit in memory.

    Raises:
        CheckpointError: they are not.
    """
    if grids is None:
        return
    pairs = isinstance(grids, list) and 0 < len(grids) < _LAYERS and all(isinstance(pair, list) for pair in grids)
    most = _LIMITS["image_size"]
    if not pairs or not all(len(p) == 2 and all(type(side) is int and 0 < side <= most for side in p) for p in grids):
        raise CheckpointError(f"{file} says image_grid_pinpoints = {str(grids)[:80]}; expected pairs from 1 to {most}")


def check_sizes(settings: Mapping[str, Any], file: Path) -> None:
    """Check that every size in a small file, at any depth, is a whole number that a model could have.

    Raises:
        CheckpointError: one is not; the message names file and entry.
    """
    for name, value in _entries(settings):
        most = _LIMITS[name]
        if (value is None and name in _OPTIONAL) or isinstance(value, (list, dict)):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
            raise CheckpointError(f"{file} says {name} = {str(value)[:80]}; expected a whole number from 1 to {most}")


def _entries(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if name in _LIMITS:
            yield name, value
        if isinstance(value, Mapping):
            yield from _entries(value)


def check_parameters(architecture: type[Any], config: Any, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Compare the number of parameters in the config and in the weights, without allocating any.

    Raises:
        CheckpointError: no such model can be built; the weights hold far fewer, so the two do not belong together; or
            the weights are quantised without a description.
    """
    file = folder / "config.json"
    with blame(file, CheckpointError), torch.device("meta"):
        model = architecture(config)
    wanted = sum(parameter.numel() for parameter in model.parameters())
    held = sum(tensor.numel() for tensor in tensors.values())
    if wanted > 2 * held and wanted - held > _UNHELD:
        raise CheckpointError(
            f"{file} describes a model of {wanted:,} parameters, the weights beside it hold {held:,}: they do not "
            "belong together"
        )
    packed = {str(tensor.dtype) for tensor in tensors.values() if tensor.dtype.itemsize == 1}
    if packed and not getattr(config, "quantization_config", None):
        raise CheckpointError(
            f"the weights in {folder} are {', '.join(sorted(packed))}, and config.json has no quantization_config that "
            "describes them: use a checkpoint in float16, bfloat16 or float32"
        )


def check_layers(config: Any, folder: Path) -> None:
    """Check that the tower has the feature layer, and that rotary sections add up to a head's size.

    Raises:
        CheckpointError: there is no such layer, or the sections do not fill a head.
    """
    file = folder / "config.json"
    chosen, text = getattr(config, "vision_feature_layer", None), config.get_text_config()
    if chosen is not None:
        depth = config.vision_config.num_hidden_layers
        layers = chosen if isinstance(chosen, (list, tuple)) else [chosen]
        if not layers or not all(type(layer) is int and -depth - 1 <= layer <= depth for layer in layers):
            raise CheckpointError(f"{file} says vision_feature_layer = {chosen!r}; the tower has {depth} layers")
    if hasattr(config.vision_config, "spatial_merge_size"):  # Qwen's three-part positions
        sections: Any = (getattr(text, "rope_parameters", None) or {}).get("mrope_section")
        half = (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) // 2
        given = isinstance(sections, list) and all(type(part) is int and part > 0 for part in sections)
        if not given or sum(sections) != half:
            raise CheckpointError(f"{file} says mrope_section = {sections!r}; expected numbers with the sum {half}")
        eyes = config.vision_config
        width = getattr(eyes, "embed_dim", None) or eyes.hidden_size
        if width % (4 * eyes.num_heads):
            raise CheckpointError(
                f"{file} says num_heads = {eyes.num_heads}, which a tower of width {width} cannot have"
            )


def check_vocabulary(tokenizer: Any, config: Any, folder: Path) -> None:
    """Check that the model has embeddings for all tokens of the tokenizer.

    Raises:
        CheckpointError: it has not.
    """
    highest, rows = max(tokenizer.get_vocab().values(), default=-1), config.get_text_config().vocab_size
    if not 0 <= highest < rows:
        raise CheckpointError(
            f"the tokenizer in {folder} has tokens up to {highest}, config.json says vocab_size {rows}"
        )


def check_pixels(image_processor: Any, folder: Path, side: int | None = None) -> None:
    """Try an image processor on a small grey picture.

    Args:
        image_processor: a checkpoint's.
        folder: folder of its settings.
        side: side of the tower's input in pixels; None for any.

    Raises:
        CheckpointError: its settings are odd, so it cannot, or makes numbers that are none, or of another size.
    """
    grey = np.full((48, 64, 3), 128, np.uint8)
    with blame(f"the image processor's settings in {folder}", CheckpointError):
        for name in ("image_mean", "image_std"):
            found = getattr(image_processor, name)
            if not isinstance(found, (list, tuple)) or len(found) != 3:
                raise CheckpointError(f"the image processor's settings in {folder}: {name} is {found!r}, not 3 numbers")
        check_sizes(image_processor.to_dict(), folder / "preprocessor_config.json")
        pixels = image_processor([grey], return_tensors="pt")["pixel_values"]
        if not torch.isfinite(pixels).all():
            raise CheckpointError(f"the image processor's settings in {folder} make pixels that are not numbers")
        if side is not None and tuple(pixels.shape[-2:]) != (side, side):
            raise CheckpointError(
                f"the image processor in {folder} makes {pixels.shape[-1]}x{pixels.shape[-2]} pictures, the vision "
                f"tower takes {side}x{side}"
            )


def read_generation(folder: Path) -> GenerationConfig | None:
    """generation_config.json, if there is one.

    Raises:
        CheckpointError: an entry has the wrong type, is out of range, or asks for something that greedy answers and
            shortened prompts do not support.
    """
    file = folder / "generation_config.json"
    if not file.exists():
        return None
    settings = read_json(file)
    defaults = GenerationConfig().to_dict()
    for name, value in settings.items():
        if value is None or name not in defaults or value == defaults[name] or name == "transformers_version":
            continue
        if name in _IDS:
            _check_ids(file, name, value)
            continue
        if name not in _GENERATION:
            raise CheckpointError(f"{file} says {name} = {str(value)[:80]}, which is not supported: remove it")
        kind, least, most = _GENERATION[name]
        given = float if kind is float and type(value) is int else type(value)
        if given is not kind or not least <= value <= most:
            wanted = "true or false" if kind is bool else f"a number ({kind.__name__}) from {least} to {most}"
            raise CheckpointError(f"{file} says {name} = {str(value)[:80]}; expected {wanted}")
    with blame(file, CheckpointError):
        return GenerationConfig.from_dict(settings)


def _check_ids(file: Path, name: str, value: Any) -> None:
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < _SIZE for each in ids):
        raise CheckpointError(f"{file} says {name} = {str(value)[:80]}; expected a token's number")
