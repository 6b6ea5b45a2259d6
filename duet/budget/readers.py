"""Sizes of a checkpoint from its config.json: one reader per family, called by `Backbone.from_config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from duet.budget.backbones import Backbone, Decoder, Tower
from duet.errors import UserError
from duet.files import is_folder, read_json


def read_backbone(config: Any) -> Backbone:
    """Read the sizes of a checkpoint, for one picture per prompt.

    Args:
        config: a transformers config object, its dictionary, or the path of a config.json (or its folder).

    Raises:
        UserError: no such file, an unknown family, or a missing field.
    """
    values, source = _read(config)
    family = values.get("model_type")
    if family not in _READERS:
        raise UserError(f"{source}: model_type is {family!r}; sizes can be read for {', '.join(_READERS)}")
    try:
        return replace(_READERS[family](values), name=source)
    except KeyError as error:
        raise UserError(f"{source}: {error.args[0]} is missing; give a config in the Hugging Face layout") from error


def _read(config: Any) -> tuple[Mapping[str, Any], str]:
    if isinstance(config, Mapping):
        return config, "config"
    if not isinstance(config, (str, Path)):
        return config.to_dict(), config.name_or_path or type(config).__name__
    path = Path(config)
    path = path / "config.json" if is_folder(path) else path
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content, str(path)


# A config.json leaves out values that equal the defaults of its class in transformers.
_CLIP_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
_NEXT_PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
_LLAMA_DEFAULTS = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
#: By model_type of the text model.
_TEXT_DEFAULTS = {
    "llama": _LLAMA_DEFAULTS,
    "mistral": {**_LLAMA_DEFAULTS, "intermediate_size": 14336, "num_key_value_heads": 8},
    "qwen2": {**_LLAMA_DEFAULTS, "intermediate_size": 22016, "num_key_value_heads": 32, "vocab_size": 151936},
}
_QWEN_EYES_DEFAULTS = {
    "depth": 32,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
#: Qwen2-VL calls the tower's width `embed_dim`, and the decoder's, in the tower's config, `hidden_size`.
_QWEN2_EYES_DEFAULTS = {**_QWEN_EYES_DEFAULTS, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4}
_QWEN2_5_EYES_DEFAULTS = {
    **_QWEN_EYES_DEFAULTS,
    "hidden_size": 3584,
    "intermediate_size": 3420,
    "out_hidden_size": 3584,
    "window_size": 112,
    "fullatt_block_indexes": (7, 15, 23, 31),
}
_QWEN3_EYES_DEFAULTS = {
    **_QWEN_EYES_DEFAULTS,
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "out_hidden_size": 3584,
    "patch_size": 16,
    "deepstack_visual_indexes": (8, 16, 24),
}
_QWEN3_TEXT_DEFAULTS = {
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "vocab_size": 151936,
}
_QWEN_TEXT_DEFAULTS = {
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
}


def _read_llava(values: Mapping[str, Any]) -> Backbone:
    eyes = {**_CLIP_DEFAULTS, **values["vision_config"]}
    text = values["text_config"]
    text = {**_TEXT_DEFAULTS.get(text.get("model_type", "llama"), {}), **text}
    feature_layer = values.get("vision_feature_layer", -2)
    depth = eyes["num_hidden_layers"]
    layers = feature_layer if feature_layer >= 0 else depth + 1 + feature_layer
    tower = Tower(
        layers=layers,
        width=eyes["hidden_size"],
        mlp_width=eyes["intermediate_size"],
        heads=eyes["num_attention_heads"],
        patch_values=eyes["num_channels"] * eyes["patch_size"] ** 2,
        unread=depth - layers,
    )
    decoder = _decoder(text)
    return Backbone(
        name="llava",
        tower=tower,
        projector=((tower.width, decoder.width), (decoder.width, decoder.width)),
        decoder=decoder,
        patches=(eyes["image_size"] // eyes["patch_size"]) ** 2,
        cls_enters=values.get("vision_feature_select_strategy", "default") == "full",
    )


def _read_llava_next(values: Mapping[str, Any]) -> Backbone:
    """Sizes for a picture with the most tiles it can have; a tile with padding has fewer patches."""
    size = values["vision_config"].get("image_size", _CLIP_DEFAULTS["image_size"])
    grids = values.get("image_grid_pinpoints") or _NEXT_PINPOINTS
    tiles = max(height // size * (width // size) for height, width in grids)
    return replace(_read_llava(values), pictures=1 + tiles, capped=True)


def _read_video_llava(values: Mapping[str, Any]) -> Backbone:
    """Sizes for the eight frames of a video, which keep their CLS token; pictures have none."""
    return replace(_read_llava(values), pictures=8, cls_enters=True)


def _read_qwen2(values: Mapping[str, Any]) -> Backbone:
    eyes = {**_QWEN2_EYES_DEFAULTS, **values["vision_config"]}
    width = eyes["embed_dim"]
    return _qwen(values, eyes, out=eyes["hidden_size"], width=width, mlp_width=width * eyes["mlp_ratio"])


def _read_qwen2_5(values: Mapping[str, Any]) -> Backbone:
    eyes = {**_QWEN2_5_EYES_DEFAULTS, **values["vision_config"]}
    merge = eyes["spatial_merge_size"]
    side = eyes["window_size"] // merge // eyes["patch_size"] * merge
    return _qwen(
        values,
        eyes,
        out=eyes["out_hidden_size"],
        width=eyes["hidden_size"],
        mlp_width=eyes["intermediate_size"],
        mlp_matmuls=3,
        window=side**2,
        full_layers=sum(block < eyes["depth"] for block in eyes["fullatt_block_indexes"]),
    )


def _read_qwen3(values: Mapping[str, Any]) -> Backbone:
    """No windows; each DeepStack level has its own merger."""
    eyes = {**_QWEN3_EYES_DEFAULTS, **values["vision_config"]}
    text = {**_QWEN3_TEXT_DEFAULTS, **(values.get("text_config") or {})}
    model = _qwen(
        {**values, "text_config": text},
        eyes,
        out=eyes["out_hidden_size"],
        width=eyes["hidden_size"],
        mlp_width=eyes["intermediate_size"],
    )
    return replace(model, projector=model.projector * (1 + len(eyes["deepstack_visual_indexes"])))


def _qwen(values: Mapping[str, Any], eyes: Mapping[str, Any], out: int, width: int, **sizes: int) -> Backbone:
    """Shared by all Qwen families; `sizes` are the fields of `Tower` in which they differ.

    The text model's fields are in `text_config`, or at the top level of the file (as on the hub). A head tied to the
    embeddings costs the same operations as a separate one.
    """
    merged = eyes["spatial_merge_size"] ** 2
    tower = Tower(
        layers=eyes["depth"],
        width=width,
        heads=eyes["num_heads"],
        patch_values=eyes["in_channels"] * eyes["temporal_patch_size"] * eyes["patch_size"] ** 2,
        patches_per_token=merged,
        **sizes,
    )
    return Backbone(
        name="qwen",
        tower=tower,
        projector=((merged * width, merged * width), (merged * width, out)),
        decoder=_decoder({**_QWEN_TEXT_DEFAULTS, **(values.get("text_config") or values)}),
        patches=None,
        cls=False,
        projects_first=True,
        reads_late=True,
        capped=True,
    )


def _decoder(text: Mapping[str, Any]) -> Decoder:
    heads = text["num_attention_heads"]
    return Decoder(
        layers=text["num_hidden_layers"],
        width=text["hidden_size"],
        mlp_width=text["intermediate_size"],
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or text["hidden_size"] // heads,
        vocabulary=text["vocab_size"],
    )


#: model_type of a config -> reader of its sizes.
_READERS = {
    "llava": _read_llava,
    "llava_next": _read_llava_next,
    "video_llava": _read_video_llava,
    "qwen2_vl": _read_qwen2,
    "qwen2_5_vl": _read_qwen2_5,
    "qwen3_vl": _read_qwen3,
}
