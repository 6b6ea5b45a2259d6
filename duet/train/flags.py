"""The originals' command-line flags as entries of a recipe.

    --lora_enable True --lora_r 128 --bits 4 --mm_projector_lr 2e-5   ->   model.lora={r: 128}, model.bits=4, ...

Read: the flags of LLaVA's `train.py` (v1.5, v1.6), PyramidDrop's and DUET's `pdrop_train.py`, Video-LLaVA's, Qwen's
`qwen-vl-finetune`, and every field of `TrainingArguments`. A flag that would be ignored is an error, unless its value
is the only one there is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from duet.config import ConfigError, parse_value
from duet.errors import suggest
from duet.train.arguments import TrainingArguments

SECTIONS = ("model", "data", "compression", "training")
#: Flag -> entry of a recipe, for values that stay as they are.
RENAMED = {
    "model_name_or_path": "model.model_name_or_path",
    "vision_tower": "model.vision_tower",
    "image_tower": "model.vision_tower",
    "video_tower": "model.video_tower",
    "pretrain_mm_mlp_adapter": "model.projector",
    "attn_implementation": "model.attn_implementation",
    "data_path": "data.data_path",
    "dataset_use": "data.data_path",
    "image_folder": "data.image_folder",
    "video_folder": "data.video_folder",
    "max_pixels": "data.max_pixels",
    "min_pixels": "data.min_pixels",
    "video_fps": "data.fps",
    "video_min_frames": "data.min_frames",
    "video_max_frames": "data.max_frames",
    "mm_projector_lr": "training.mm_projector_lr",
    "mm_vision_tower_lr": "training.rates.tower",
    "vision_tower_lr": "training.rates.tower",
    "tokenizer_model_max_length": "training.model_max_length",
    "gradient_checkpointing": "training.activation_checkpointing",
    "gradient_checkpointing_kwargs": "training.activation_checkpointing_kwargs",
}
#: Numbers of peft's options.
LORA = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "lora_bias": "bias"}
#: Flags whose meaning depends on others, see `_parts` and `_compression`.
PARTS = ("tune_mm_mlp_adapter", "freeze_mm_mlp_adapter", "freeze_backbone", "unfreeze_mm_vision_tower")
QWEN_PARTS = {"tune_mm_llm": "decoder", "tune_mm_mlp": "projector", "tune_mm_vision": "tower"}
COMPRESSION = (
    "dominant_num",
    "context_num",
    "cluster_width",
    "layer_list",
    "image_token_ratio_list",
    "use_salient_tokens",
)
#: Flags with one possible value here, and why.
ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "mm_projector_type": (("mlp2x_gelu",), "the projector of stock LLaVA"),
    "mm_vision_select_layer": ((-2,), "the layer of LLaVA-1.5; a checkpoint's config.json may say another one"),
    "mm_vision_select_feature": (("patch",), "a checkpoint's config.json may say cls_patch"),
    "mm_use_im_start_end": ((False,), "such tokens are in no LLaVA since v1"),
    "mm_use_im_patch_token": ((False,), "such tokens are in no LLaVA since v1"),
    "mm_patch_merge_type": (("flat", "spatial_unpad"), "model.kind says it: llava or llava_next"),
    "is_multimodal": ((True,), "rows say what they hold"),
    "lazy_preprocess": ((True,), "rows are always encoded when they are used"),
    "double_quant": ((True,), "as in the original's scripts"),
    "quant_type": (("nf4",), "as in the original's scripts"),
    "data_flatten": ((False,), "methods rank the tokens of one row at a time"),
    "data_packing": ((False,), "methods rank the tokens of one row at a time"),
    "evaluation_strategy": (("no", False), "data.eval_data_path and data.eval_every watch held-out rows"),
    "eval_strategy": (("no", False), "data.eval_data_path and data.eval_every watch held-out rows"),
    "monitor_grads": ((True, False), "the finite check of every run names rows and parameters"),
    "raise_on_nan_grad": ((True, False), "the finite check of every run names rows and parameters"),
}
#: Flags that change nothing of a run here.
NOTHING = ("overwrite_output_dir", "save_safetensors", "cache_dir", "local_rank", "X", "monitor_every",
           "image_grid_pinpoints")  # fmt: skip
VERSIONS = {"v1": "vicuna_v1"}
#: The rank that peft's option has in `lora_enable` without `lora_r`, as in LLaVA.
_RANK = 64
_OVERRIDE = re.compile(rf"({'|'.join(SECTIONS)})\.[\w.]+=.*", re.DOTALL)


@dataclass
class Words:
    """A command line.

    Attributes:
        recipe: its file; None without one.
        overrides: `section.key=value`.
        flags: `--name value ...`, without the dashes.
        dry: only print the recipe.
    """

    recipe: str | None = None
    overrides: list[str] = field(default_factory=list)
    flags: dict[str, list[str]] = field(default_factory=dict)
    dry: bool = False


def split_words(words: Sequence[str]) -> Words:
    """Sort the words of a command line.

    Raises:
        ConfigError: a flag is given twice, or a word is none of these.
    """
    found, flag = Words(), None
    for word in words:
        if word in ("--dry-run", "--dry_run"):
            found.dry, flag = True, None
        elif word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            flag = name.replace("-", "_")
            if flag in found.flags:
                raise ConfigError(f"--{flag} is given twice")
            found.flags[flag] = [value] if equals else []
            flag = None if equals else flag
        elif _OVERRIDE.fullmatch(word):
            found.overrides.append(word)
            flag = None
        elif flag is not None:
            found.flags[flag].append(word)
        elif found.recipe is None and not found.overrides:
            found.recipe = word
        else:
            raise ConfigError(f"{word!r}: expected section.key=value (sections: {', '.join(SECTIONS)}) or --flag value")
    return found


def translate(flags: Mapping[str, Sequence[str]], alone: bool = True) -> dict[str, Any]:
    """Entries of a recipe by `section.key`.

    Args:
        flags: names without dashes, and the words after them.
        alone: there is no recipe, so what the originals do without a flag (the tower is fixed) holds as well.

    Raises:
        ConfigError: an unknown flag, or a value that cannot be followed.
    """
    values = {name: _value(name, words) for name, words in flags.items()}
    known = {entry.name for entry in fields(TrainingArguments) if entry.init}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in RENAMED:
            found[RENAMED[name]] = value
        elif name in ONLY:
            if value not in ONLY[name][0]:
                choices = str(ONLY[name][0][0])
                raise ConfigError(f"--{name} {value}: only {choices} is possible: {ONLY[name][1]}")
        elif name == "version":
            found["data.version"] = VERSIONS.get(value, value)
        elif name == "image_aspect_ratio":
            found |= {"model.kind": "llava_next"} if value == "anyres" else {"data.image_aspect_ratio": value}
        elif name == "warmup_ratio":
            found["training.warmup_steps"] = float(value)
        elif name == "bits":
            found |= {} if value == 16 else {"model.bits": value}
        elif name in ("bf16", "fp16", "tf32") or name in known:
            found[f"training.{name}"] = value
        elif name not in (*LORA, "lora_enable", *PARTS, *QWEN_PARTS, *COMPRESSION, *NOTHING):
            names = [
                "lora_enable",
                *RENAMED,
                *ONLY,
                *LORA,
                *PARTS,
                *QWEN_PARTS,
                *COMPRESSION,
                *known,
                "version",
                "bits",
            ]
            raise ConfigError(f"unknown flag --{name}; {suggest(name, sorted(names))}")
    if "tokenizer_model_max_length" in values:  # of the whole sequence, as model_max_length is here
        found["training.model_max_length"] = values["tokenizer_model_max_length"]
    if "video_tower" in values:
        found["model.kind"] = "video_llava"
    if values.get("mm_patch_merge_type") == "spatial_unpad":
        found["model.kind"] = "llava_next"
    return {**found, **_lora(values), **_parts(values, alone), **_compression(values)}


def _value(name: str, words: Sequence[str]) -> Any:
    if not words:
        return True
    read = [parse_value(word, f"--{name}") for word in words]
    if name == "dataset_use":
        return str(words[0]).split(",")
    return read[0] if len(read) == 1 else read


def _lora(values: Mapping[str, Any]) -> dict[str, Any]:
    given = [name for name in LORA if name in values]
    if not values.get("lora_enable"):
        if given and "lora_enable" not in values:
            raise ConfigError(f"--{given[0]} has no effect without --lora_enable True")
        return {}
    return {"model.lora": {"r": _RANK, **{LORA[name]: values[name] for name in given}}}


def _parts(values: Mapping[str, Any], alone: bool) -> dict[str, Any]:
    """What is trained: in LLaVA all but the tower, in Qwen the parts that are named."""
    named = [part for flag, part in QWEN_PARTS.items() if values.get(flag)]
    if any(flag in values for flag in QWEN_PARTS):
        if not named and not values.get("lora_enable"):
            raise ConfigError(
                "--tune_mm_llm, --tune_mm_mlp and --tune_mm_vision are all False: nothing would be trained"
            )
        return {"model.train": named} if named else {}
    if values.get("tune_mm_mlp_adapter"):
        return {"model.tune_mm_mlp_adapter": True}
    if not alone and not any(flag in values for flag in PARTS):
        return {}
    fixed = ["projector"] if values.get("freeze_mm_mlp_adapter") else []
    if values.get("lora_enable"):
        beside = ["projector", "tower"] if values.get("unfreeze_mm_vision_tower") else []
        return {**({"model.train": beside} if beside else {}), **({"model.freeze": fixed} if fixed else {})}
    fixed += [] if values.get("unfreeze_mm_vision_tower") else ["tower"]
    fixed += ["model.language_model"] if values.get("freeze_backbone") else []
    return {"model.freeze": fixed}


def _compression(values: Mapping[str, Any]) -> dict[str, Any]:
    """DUET's counts, or PyramidDrop's layers alone (`P scripts/v1_5/pdrop_train`)."""
    if not any(name in values for name in COMPRESSION):
        return {}
    budget: dict[str, Any] = {}
    for flag, name in (("dominant_num", "dominant"), ("context_num", "contextual"), ("cluster_width", "cluster_width")):
        if flag in values:
            budget[name] = values[flag]
    for flag, name in (("layer_list", "layers"), ("image_token_ratio_list", "ratios")):
        if values.get(flag) is not None:
            budget[name] = _listed(flag, values[flag])
    if ("layers" in budget) != ("ratios" in budget):
        raise ConfigError("--layer_list and --image_token_ratio_list belong together: give both or none")
    first, second = "dominant" in budget, "layers" in budget
    if not first and any(name in values for name in ("context_num", "cluster_width")):
        raise ConfigError("--context_num and --cluster_width need --dominant_num")
    salient = bool(values.get("use_salient_tokens"))
    if salient and not second:
        raise ConfigError("--use_salient_tokens has no effect without --layer_list")
    # the released code ranks by all text unless salient words are asked for; PyramidDrop's own by the last token
    both = "duet_c_s" if salient else "duet"
    alone = "pyramiddrop_s" if salient else "pyramiddrop"
    method = both if first and second else "visionzip_c" if first else alone
    return {"compression.method": method, "compression.budget": budget}


def _listed(flag: str, value: Any) -> list[Any]:
    value = parse_value(value, f"--{flag}") if isinstance(value, str) else value
    if not isinstance(value, list):
        raise ConfigError(f"--{flag} is {value!r}; expected a list, e.g. [16,24]")
    return value


def assignments(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Nested sections of `section.key` entries."""
    nested: dict[str, Any] = {}
    for path, value in entries.items():
        *sections, key = path.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return nested
