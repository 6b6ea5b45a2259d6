"""Shared by original checkpoints of the LLaVA family: a LLaMA or Mistral whose config.json has `mm_*` entries.

The checkpoint holds projector and decoder; vision towers are inside or in separate folders, and the vocabulary has no
placeholder tokens. Settings that a family's Hugging Face class cannot express are refused by name, not loaded as
something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import AddedToken, pre_tokenizers
from transformers import LlamaConfig, LlamaTokenizer, MistralConfig, PreTrainedTokenizerFast

from duet.checkpoints.files import CheckpointError, read_json, read_tensors, resolve_folder, weight_files
from duet.files import blame

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")
#: The vocabulary grows to a multiple of 64, for fast matrix products (llava-hf/llava-1.5-7b-hf has 32064 rows).
ROW_BLOCK = 64


def swap_prefix(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    """The name with the first matching prefix replaced; unknown names stay as they are."""
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def refuse_inexpressible(
    config: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]], absent: Mapping[str, Any], target: str
) -> None:
    """Check the entries that have no counterpart in a Hugging Face class.

    Args:
        config: config.json of the checkpoint.
        allowed: supported values, by entry.
        absent: the original's defaults for absent entries.
        target: description of the values in `allowed`, for the message.

    Raises:
        CheckpointError: an entry has another value.
    """
    for name, values in allowed.items():
        value = config.get(name, absent.get(name))
        if value not in values:
            raise CheckpointError(
                f"config.json says {name} = {value!r}; supported is {' or '.join(map(repr, values))} ({target})"
            )


def original_family(settings: Mapping[str, Any]) -> str | None:
    """`model_type` of the stock model that a config.json of the original layout becomes; None for other layouts."""
    if "vision_config" in settings:
        return None
    if settings.get("mm_video_tower") or settings.get("mm_image_tower"):
        return "video_llava"
    if not settings.get("mm_vision_tower"):
        return None
    return "llava_next" if settings.get("mm_patch_merge_type", "flat") != "flat" else "llava"


def text_config(config: Mapping[str, Any], last_token: int) -> LlamaConfig | MistralConfig:
    """Text settings of an original checkpoint, with a vocabulary that holds the placeholders up to `last_token`."""
    kind = MistralConfig if str(config.get("model_type")).endswith("mistral") else LlamaConfig
    known = {field.name for field in fields(kind)} | {"rope_theta", "rope_scaling"}
    # None means the default, except for Mistral's window, where it means "no window"
    text = kind(**{k: v for k, v in config.items() if k in known and (v is not None or k == "sliding_window")})
    if last_token >= text.vocab_size:
        text.vocab_size = -(-(last_token + 1) // ROW_BLOCK) * ROW_BLOCK
    return text


def clip_vision(tower: Mapping[str, Any]) -> dict[str, Any]:
    """Vision settings in the config.json of a CLIP vision model, or of a model around one (`clip`, LanguageBind).

    Raises:
        CheckpointError: another kind of tower.
    """
    vision = tower.get("vision_config", tower)
    kinds = {tower.get("model_type"), vision.get("model_type")}
    if not kinds & {"clip", "clip_vision_model"}:
        raise CheckpointError(
            f"the vision tower has model_type {tower.get('model_type')!r}; supported are clip and clip_vision_model"
        )
    if not vision.get("hidden_size"):
        raise CheckpointError("the vision tower's config.json does not say how large the tower is (hidden_size)")
    return dict(vision)


def tower_folder(
    name: str, folder: Path, given: str | Path | None, *, weights: bool, option: str = "vision_tower"
) -> Path:
    """Folder of a tower: `given` by the argument `option` if any, else `name`, relative paths against `folder`."""
    if not isinstance(name, str):
        raise CheckpointError(f"{folder / 'config.json'} says that {option} is {str(name)[:80]}, which is not a name")
    if given is None and (folder / name).is_dir():
        return folder / name
    try:
        return resolve_folder(str(given or name), weights=weights)
    except CheckpointError as error:
        raise CheckpointError(f"{option.replace('_', ' ')}: {error} (`{option}=FOLDER` says where it is)") from error


def read_tower(folder: Path, prefix: str) -> dict[str, Tensor]:
    """Tensors of a CLIP vision tower in a separate folder, under original names; a text tower is left out.

    Args:
        folder: the tower's.
        prefix: prefix of its tensors inside an original checkpoint.
    """
    whole = "vision_config" in read_json(folder / "config.json")
    found = {}
    for name, tensor in read_tensors(weight_files(folder)).items():
        if name.startswith("vision_model.") or not whole:
            found[prefix + name.removeprefix("vision_model.")] = tensor
    return found


def grow_vocabulary(tensors: dict[str, Tensor], rows: int) -> None:
    """Give embedding and head `rows` rows, in place; new ones are the mean of the old.

    The picture replaces the embedding of a placeholder. A mean row in the head gives the mean of all logits, which is
    never above the largest one, and by Jensen's inequality changes a loss by at most log(rows / old rows).
    """
    for name in EMBEDDINGS:
        if name in tensors and len(tensors[name]) < rows:
            old = tensors[name]
            mean = old.float().mean(0, keepdim=True).to(old.dtype)
            tensors[name] = torch.cat([old, mean.expand(rows - len(old), -1)])


def new_projector(tower_width: int, text_width: int, dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
    """A new `mlp2x_gelu`, by original names: torch's default initial values of two linear layers, as in LLaVA.

    Args:
        tower_width, text_width: sizes of a patch's features and of a token's embedding.
        dtype: of the result; drawn in float32.
        seed: of the draw; torch's own generator is not touched.
    """
    tensors = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for place, width in ((0, tower_width), (2, text_width)):
            layer = torch.nn.Linear(width, text_width)
            for name, value in layer.state_dict().items():
                tensors[f"model.mm_projector.{place}.{name}"] = value.to(dtype)
    return tensors


def float_dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The type of a checkpoint's weights."""
    return next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)


def read_tokenizer(folder: Path, placeholders: Iterable[str]) -> PreTrainedTokenizerBase:
    """Tokenizer of an original checkpoint, with placeholder tokens added if it has none.

    The original tokenizes the text before and after a picture separately, and sentencepiece puts a space before each
    part. So here a space goes before every part between special tokens, as in the llava-hf tokenizers. Byte-level BPE
    (LLaMA 3) adds none.
    """
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise CheckpointError(f"{folder} has neither tokenizer.json nor tokenizer.model")
    settings = folder / "tokenizer_config.json"
    kind = read_json(settings).get("tokenizer_class", "LlamaTokenizer") if settings.exists() else "LlamaTokenizer"
    pieces = str(kind).removesuffix("Fast") == "LlamaTokenizer"
    reader: Any = LlamaTokenizer if pieces else PreTrainedTokenizerFast
    with blame(f"the tokenizer in {folder}", CheckpointError):
        tokenizer = reader.from_pretrained(folder, padding_side="left")
    for token in placeholders:
        if token not in tokenizer.get_vocab():
            tokenizer.add_tokens(AddedToken(token, special=True, normalized=False), special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if pieces:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    return tokenizer
