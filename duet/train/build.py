"""`duet train build`: a stock Hugging Face folder to train from.

From a language model (Vicuna, LLaMA, Mistral) and CLIP or LanguageBind towers, as the originals' first stage starts:
the projector is new (torch's default initial values, from a seed), `<image>` (and `<video>`) are added to the
tokenizer, and padding is the unknown token. From a LLaVA in the original layout, a projector or an adapter with its
base: the same model, converted or merged.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from duet.checkpoints.files import has_weights, read_tensors, resolve_folder, weight_files
from duet.checkpoints.original import float_dtype
from duet.checkpoints.sanity import read_config
from duet.checkpoints.setting import FILE, find_setting
from duet.engine.compat import forget_renamings
from duet.errors import UserError
from duet.families import imported, model_types
from duet.files import check_output_folder
from duet.loading import load_stock
from duet.train.saving import read_projector

#: Types of a bare language model.
LANGUAGE_MODELS = ("llama", "mistral")


def is_language_model(settings: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a bare language model that a tower can be put before."""
    towers = [name for name in settings if name.startswith("mm_") and settings[name]]
    return settings.get("model_type") in LANGUAGE_MODELS and not towers and "vision_config" not in settings


def build_folder(
    path: str | Path,
    output: str | Path,
    tower: str | None = None,
    *,
    video_tower: str | None = None,
    kind: str = "llava",
    seed: int = 0,
    dtype: torch.dtype | None = None,
    projector: str | None = None,
    model_base: str | None = None,
) -> Path:
    """Write a stock folder; returns it.

    Args:
        path: folder or hub id of a language model, or of a model of any family, layout and kind.
        output: the new folder; it must not exist yet, or be empty.
        tower: before a language model; or where an original checkpoint's tower is.
        video_tower: the second tower of a Video-LLaVA.
        kind: what to make of a language model: `llava`, `llava_next`, `video_llava`.
        seed: of new weights.
        dtype: of the weights; None: as they are.
        projector: `mm_projector.bin` in place of the projector.
        model_base: of an adapter or a projector.

    Raises:
        UserError: an unusable checkpoint, name or folder.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists: choose a new folder, or remove it")
    folder = resolve_folder(path)
    bare = not (folder / "adapter_config.json").exists() and is_language_model(read_config(folder))
    if bare and tower is None:
        raise UserError(f"{path} is a language model: name a tower to put before it (--tower)")
    if not bare and video_tower is not None:
        raise UserError(f"{path} is a whole model; --video-tower is for a language model")
    if bare:
        family = model_types().get(kind)
        if family is None or family.builder is None:
            names = [name for name, each in model_types().items() if each.builder]
            raise UserError(f"kind is {kind!r}; a language model becomes one of {', '.join(names)}")
        towers = {} if video_tower is None else {"video_tower": video_tower}
        model, processor = imported(family.builder)(folder, tower, kind=kind, seed=seed, dtype=dtype, **towers)
    else:
        given = {"vision_tower": tower, "model_base": model_base}
        options = {name: value for name, value in given.items() if value is not None}
        model, processor = load_stock(str(path), device="cpu", dtype=dtype or stored_dtype(folder), **options)
    if projector is not None:
        read_projector(model, projector)
    save_folder(model, processor, output, folder)
    return output


def merge_folder(
    path: str | Path, output: Path, *, dtype: torch.dtype | None = None, model_base: str | None = None
) -> Path:
    """Write an adapter and its base model as one stock folder; returns it.

    Every layer is merged in float32, whatever the weights' own type.

    Args:
        path: folder or hub id of an adapter, ours or LLaVA's.
        output: the new folder.
        dtype: of the weights; None: the base's.
        model_base: the base model; None: the one that the adapter names.

    Raises:
        UserError: not an adapter, or unusable.
    """
    folder = resolve_folder(path, weights=False)
    if not (folder / "adapter_config.json").exists():
        raise UserError(f"{path} has no adapter_config.json: nothing to merge; `duet train build` converts layouts")
    return build_folder(path, output, dtype=dtype, model_base=model_base)


def stored_dtype(folder: Path) -> torch.dtype:
    """The type that a checkpoint's config.json says its weights have, else theirs; of an adapter, its base model's."""
    from duet.checkpoints.adapters import base_of, is_adapter

    if is_adapter(folder):
        return stored_dtype(resolve_folder(base_of(folder), weights=False))
    settings = read_config(folder)
    named = settings.get("dtype") or settings.get("torch_dtype") or (settings.get("text_config") or {}).get("dtype")
    found = getattr(torch, str(named).removeprefix("torch."), None) if named else None
    if not isinstance(found, torch.dtype) and has_weights(folder):
        found = float_dtype(read_tensors(weight_files(folder)))
    return found if isinstance(found, torch.dtype) else torch.float32


def save_folder(model: Any, processor: Any, output: Path, source: Path) -> None:
    """Write model and processor; the folder appears when it is complete.

    Args:
        model, processor: to save.
        output: new or empty.
        source: whose `duet_config.json` is taken over.
    """
    size = sum(value.numel() * value.element_size() for value in model.parameters())
    part = output.with_name(f"{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    check_output_folder(part, UserError, space=size)
    forget_renamings(model)
    model.save_pretrained(part)
    processor.save_pretrained(part)
    setting = find_setting(source)
    if setting is not None and not (part / FILE).exists():
        setting.write(part)
    if output.exists():
        output.rmdir()
    os.replace(part, output)
