"""The model that a run starts from: of any family, layout and kind, quantised or not, with projector and adapters."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from duet.checkpoints.adapters import base_of, is_adapter
from duet.checkpoints.assemble import quantisation
from duet.checkpoints.files import CheckpointError, resolve_folder, weight_files
from duet.checkpoints.original import original_family
from duet.checkpoints.sanity import read_config
from duet.families import ORIGINAL_LOADERS, model_types
from duet.files import is_folder
from duet.loading import load_stock
from duet.train.adapters import add_lora
from duet.train.build import build_folder, is_language_model
from duet.train.saving import read_projector
from duet.train.sharding import kept_whole

if TYPE_CHECKING:
    from duet.train.arguments import DataArguments, ModelArguments, Recipe, TrainingArguments

logger = logging.getLogger(__name__)

#: Folder in `output_dir` of a model that is assembled for the run.
BUILT = "start"


def check_start(folder: Path, model: ModelArguments) -> None:
    """Check that a folder holds something that can be trained; loads nothing.

    Args:
        folder: of the checkpoint, downloaded.
        model: the recipe's section.

    Raises:
        CheckpointError: another family, or incomplete.
    """
    if (folder / "adapter_config.json").exists():
        return  # its base is checked when it is loaded
    settings = read_config(folder)
    families = model_types()
    if is_language_model(settings):
        weight_files(folder)
        if not model.vision_tower:
            raise CheckpointError(
                f"{folder} is a language model without a vision tower: name one with model.vision_tower, or assemble "
                "both with `duet train build`"
            )
        return
    original = "vision_config" not in settings and any(settings.get(entry) for entry in ORIGINAL_LOADERS)
    if not original and (settings.get("model_type") not in families or "vision_config" not in settings):
        raise CheckpointError(
            f"{folder} is of type {settings.get('model_type')!r}; training supports {', '.join(families)}, the "
            "original layout of LLaVA and Video-LLaVA, and LLaMA or Mistral with model.vision_tower"
        )
    if not original:
        read_config(folder, "vision_config")
        if model.vision_tower:
            raise CheckpointError(f"model.vision_tower has no effect: {folder} has a tower of its own")
    weight_files(folder)


def family_of(folder: Path) -> str:
    """`model_type` of the stock model that a checkpoint of any layout and kind becomes."""
    if is_adapter(folder):
        return family_of(resolve_folder(base_of(folder), weights=False))
    settings = read_config(folder)
    return original_family(settings) or str(settings["model_type"])


def make_start(folder: Path, recipe: Recipe) -> Path:
    """The folder to load: assembles a language model and its towers once, in `output_dir`; all processes call it."""
    model, training = recipe.model, recipe.training
    if (folder / "adapter_config.json").exists() or not is_language_model(read_config(folder)):
        return folder
    built = Path(str(training.output_dir)) / BUILT
    with training.main_process_first(local=False, desc="assembling the model"), kept_whole(training):
        if not (built / "config.json").exists():
            assert model.vision_tower is not None
            build_folder(folder, built, model.vision_tower, video_tower=model.video_tower, kind=model.kind,
                         seed=training.seed)  # fmt: skip
    return built


def load_start(recipe: Recipe, folder: Path) -> tuple[Any, Any]:
    """Model and processor to start from; every weight has to come from the checkpoint.

    Args:
        recipe: of the run.
        folder: from `make_start`.

    Raises:
        CheckpointError: damaged, or its weights do not fit its config.json.
    """
    chosen = recipe.model
    dtype = getattr(torch, chosen.dtype)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": chosen.attn_implementation, "device": "cpu"}
    if chosen.bits is not None:
        options |= {"quantization_config": quantisation(chosen.bits, compute_dtype(recipe.training, dtype))}
        options |= {"device": None, "device_map": {"": recipe.training.device}}
    for name in ("vision_tower", "model_base"):
        value = getattr(chosen, name)
        if value is not None and (name == "model_base" or folder.name != BUILT):
            options[name] = value
    model, processor = load_stock(str(folder), **options)
    name = chosen.model_name_or_path
    model.config.name_or_path = model.name_or_path = str(folder.resolve()) if is_folder(name) else name
    if folder.name == BUILT:
        model.config.name_or_path = model.name_or_path = str(folder.resolve())
    if chosen.projector is not None:
        read_projector(model, chosen.projector)
    limit_pixels(processor, recipe.data)
    return model, processor


def adapt(model: Any, recipe: Recipe) -> Any:
    """The model with the recipe's adapters, or itself."""
    chosen, training = recipe.model, recipe.training
    if not chosen.lora:
        return model
    checkpointing = bool(training.activation_checkpointing)
    return add_lora(model, chosen.lora, quantised=chosen.bits is not None, checkpointing=checkpointing)


def limit_pixels(processor: Any, data: DataArguments) -> None:
    """Set the smallest and largest picture that the processor makes, for families whose pictures have any size.

    Raises:
        CheckpointError: the family's pictures have one size.
    """
    limits = {"shortest_edge": data.min_pixels, "longest_edge": data.max_pixels}
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        return
    pictures = processor.image_processor
    size = dict(pictures.size)
    if "longest_edge" not in size:
        raise CheckpointError("data.min_pixels and max_pixels have no effect: this family's pictures have one size")
    pictures.size = {**size, **given}
    if pictures.size["shortest_edge"] > pictures.size["longest_edge"]:
        raise CheckpointError(f"data.min_pixels is above max_pixels: {pictures.size}")
    for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if hasattr(pictures, name):
            setattr(pictures, name, pictures.size[edge])


def compute_dtype(training: TrainingArguments, dtype: torch.dtype) -> torch.dtype:
    """What a run computes in, with master weights of this type."""
    return torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else dtype
