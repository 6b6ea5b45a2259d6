"""`duet.load`: a checkpoint of any family, layout and kind (whole, projector, adapter), and its compression.

A folder with `adapter_config.json` holds only what peft trained; its base model is named there, or by `model_base`.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.errors import UserError
from duet.families import ORIGINAL_LOADERS, imported, model_types
from duet.method_table import find_method
from duet.registry import attach, trained_method
from duet.switches import Switches, own_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from duet.budget import Budget
    from duet.checkpoints.setting import Setting


def load(
    path: str | Path,
    method: str | None = None,
    budget: Budget | str | float | None = None,
    *,
    salient: Callable[[Tensor, Tensor], Tensor] | None = None,
    companion: str | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """Load a checkpoint and attach compression, if a method is given or the checkpoint was trained with one.

    Args:
        path: local folder or hub id; also one that holds only an adapter or a projector (see `load_stock`).
        method, budget, salient, companion: see `attach`. Without a method, that of the checkpoint's `duet_config.json`
            is attached, with its budget; `none` for all tokens.
        options: fields of `Switches` and of the method go to `attach`; all others (`dtype`, `device_map`,
            `attn_implementation`, `revision`, `model_base`, ...) go to `load_stock`.

    Returns:
        model and processor.

    Raises:
        UserError: an option or a name is unknown, or compression is described but no method is given.
        CheckpointError: the checkpoint is incomplete, damaged or of another family; the message gives details.
    """
    path = str(path)
    trained = _setting(path, options.get("revision")) if method is None else None
    named = method if trained is None else trained.method
    names = {entry.name for entry in fields(Switches)}
    if named is not None:
        names |= set(own_options(trained_method(trained, path) if trained else find_method(named)))
    switches = {name: value for name, value in options.items() if name in names}
    loading = {name: value for name, value in options.items() if name not in names}
    described = {"budget": budget, "salient": salient, "companion": companion, **switches}
    idle = [name for name, value in described.items() if value is not None]
    if named is None and idle:
        raise UserError(f"without a method {', '.join(idle)} would do nothing: give one of duet.methods()")
    model, processor = load_stock(path, **loading)
    if named is not None:
        attach(model, method, budget, tokenizer=processor.tokenizer, salient=salient, companion=companion, **switches)
    return model, processor


def load_stock(path: str | Path, **loading: Any) -> tuple[Any, Any]:
    """Load a checkpoint with nothing attached.

    Args:
        path: local folder or hub id. An adapter is merged into its base model, layer by layer in float32; on quantised
            weights it stays beside them.
        loading: options of the family's loader, see `duet.checkpoints.options`; `model_base` names the base of an
            adapter or a projector.

    Returns:
        model and processor.

    Raises:
        UserError: an option is unknown.
        CheckpointError: see `load`.
    """
    from duet.checkpoints.adapters import add_adapter, base_of, is_adapter
    from duet.checkpoints.files import resolve_folder
    from duet.engine.compat import forget_renamings

    folder = resolve_folder(path, revision=loading.get("revision"), weights=False)
    if is_adapter(folder):
        folder = resolve_folder(path, revision=loading.get("revision"))
        base = base_of(folder, loading.pop("model_base", None))
        model, processor = load_stock(str(base), **{**loading, "revision": None})
        model = add_adapter(model, folder, names_of(model.config), merge=not getattr(model, "is_quantized", False))
        model.config.name_or_path = model.name_or_path = str(folder)
    else:
        model, processor = imported(find_loader(str(path), loading.get("revision")))(path, **loading)
    forget_renamings(model)
    # `generate` reads the last column of a batch; Qwen's and some converted tokenizers pad on the right
    processor.tokenizer.padding_side = "left"
    return model, processor


def names_of(config: Any) -> Callable[[str], str]:
    """Translates a tensor's name in the original layout into that of the stock class; unknown names stay."""
    original = model_types()[config.model_type].original
    return str if original is None else imported(f"{original}:to_hf_name")


def _setting(path: str, revision: str | None) -> Setting | None:
    """The checkpoint's setting; a hub id's small files are fetched for it."""
    from duet.checkpoints.files import resolve_folder
    from duet.checkpoints.setting import find_setting, read_setting

    if Path(path).is_dir() or path.startswith((".", "/", "~")) or path.count("/") != 1:
        return find_setting(Path(path).expanduser() if path.startswith("~") else path)
    return read_setting(resolve_folder(path, revision=revision, weights=False))


def find_loader(path: str, revision: str | None = None) -> str:
    """`module:function` that loads a checkpoint.

    Raises:
        CheckpointError: no supported family.
    """
    from duet.checkpoints.files import CheckpointError, resolve_folder
    from duet.checkpoints.sanity import read_config

    settings = read_config(resolve_folder(path, revision=revision, weights=False))
    families = model_types()
    original = {} if "vision_config" in settings else settings
    for entry, loader in ORIGINAL_LOADERS.items():
        if original.get(entry):
            return loader
    family = settings.get("model_type")
    if family not in families:
        raise CheckpointError(
            f"{path}: model_type in config.json is {family!r}; supported are {', '.join(families)} in the Hugging Face "
            f"layout, and the original layout of those whose config.json has {' or '.join(ORIGINAL_LOADERS)}"
        )
    return families[family].loader
