"""LoRA, DoRA and QLoRA through peft: which layers get an adapter, and what is trained beside them.

A recipe's `model.lora` holds peft's own options. Without `target_modules`, all linear layers of the language model but
its head get an adapter, as in LLaVA: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`. Names
without a dot mean layers of the language model only; peft itself would find `q_proj` in a CLIP tower, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from duet.checkpoints.adapters import without_old_names
from duet.config import ConfigError
from duet.errors import suggest
from duet.extras import need
from duet.files import blame

#: LLaVA's defaults (`llava/train/train.py`).
DEFAULTS = {"r": 64, "lora_alpha": 16, "lora_dropout": 0.05, "bias": "none", "task_type": "CAUSAL_LM"}
#: Initial values that are computed from the weights, which ZeRO-3 splits over the processes.
FROM_WEIGHTS = ("pissa", "olora", "eva", "loftq", "corda")


def check_lora(given: Mapping[str, Any]) -> None:
    """Check the options before a model is loaded.

    Raises:
        ConfigError: peft is not installed, or an option is unknown or unusable.
    """
    need("lora", "train", "peft", error=ConfigError)
    from peft import LoraConfig

    known = [entry.name for entry in fields(LoraConfig) if entry.init]
    for name in given:
        if name not in known:
            raise ConfigError(f"lora: unknown option {name!r}; {suggest(str(name), known)}")
    rank = given.get("r", DEFAULTS["r"])
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ConfigError(f"lora: r is {rank!r}; expected a rank of at least 1")
    if "target_modules" not in given:
        given = {**given, "target_modules": "x"}
    with blame("lora", ConfigError):
        LoraConfig(**{**DEFAULTS, **given})


def add_lora(model: Any, given: Mapping[str, Any], *, quantised: bool = False, checkpointing: bool = False) -> Any:
    """Wrap a model with new adapters.

    Args:
        model: the stock model.
        given: peft's options, see the module's docstring.
        quantised: its decoder has 4-bit or 8-bit weights.
        checkpointing: gradient checkpointing is on.

    Raises:
        ConfigError: no layer fits `target_modules`.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if quantised:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    options = {**DEFAULTS, **given, "target_modules": target_pattern(model, given.get("target_modules"))}
    with blame("model.lora", ConfigError), without_old_names():
        return get_peft_model(model, LoraConfig(**options))


def target_pattern(model: nn.Module, named: Any) -> str:
    """A pattern of the full names of the layers that get an adapter.

    Args:
        model: the stock model.
        named: None, a pattern of peft's, or last parts of layer names.
    """
    if isinstance(named, str) and named != "all-linear":
        return named
    everywhere = named is None or named == "all-linear"
    names = linear_names(model) if everywhere else [str(name) for name in named]
    dotted = [re.escape(name) for name in names if "." in name]
    plain = [re.escape(name) for name in names if "." not in name]
    inside = [rf"language_model\..*\.({'|'.join(plain)})"] if plain else []
    return rf"(.*\.)?({'|'.join([*inside, *dotted])})"


def linear_names(model: nn.Module) -> list[str]:
    """Last parts of the names of all linear layers in the language model, its head left out.

    Quantised layers are linear ones of their own classes.
    """
    kinds = ("Linear", "Linear4bit", "Linear8bitLt")
    return sorted(
        {
            name.rsplit(".", 1)[1]
            for name, module in model.named_modules()
            if ".language_model." in f".{name}." and any(base.__name__ in kinds for base in type(module).__mro__)
        }
    )
