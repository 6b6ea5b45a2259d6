"""Checks of a recipe before the model is loaded, so a mistake costs seconds and not a night."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks
from transformers.training_args import ParallelMode

from duet.checkpoints.files import CheckpointError, resolve_folder
from duet.config import ConfigError
from duet.errors import UserError, suggest
from duet.extras import need
from duet.files import blame, check_output_folder, parse_json, read_json, regular_file
from duet.method_table import find_method
from duet.switches import check_switches
from duet.train.adapters import FROM_WEIGHTS, check_lora
from duet.train.elastic import ALL, Choice, check_weights, read_choices
from duet.train.ranks import size_of
from duet.train.start import check_start
from duet.train.teacher import check_teacher

if TYPE_CHECKING:
    from torch import nn

    from duet.train.arguments import CompressionArguments, Recipe, TrainingArguments

#: Optimizers for a whole model, without parameter groups for the projector.
_OF_A_MODEL = ("galore", "apollo", "lomo")
_CHECKPOINTING = ("use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop")
#: Arguments of torch's DataLoader that may contradict each other.
_LOADING = ("num_workers", "prefetch_factor", "persistent_workers", "multiprocessing_context")
#: Numbers that AdamW stores per trained parameter.
_MOMENTS = 2


def check_recipe(recipe: Recipe) -> Path:
    """Everything but the data; returns the folder of the checkpoint that training starts from.

    Raises:
        UserError: an unusable name, number, file or package; the message names it.
    """
    training = recipe.training
    check_compression(recipe.compression)
    if find_method(recipe.compression.method).stages and training.label_smoothing_factor:
        raise ConfigError("training.label_smoothing_factor is for all tokens; compression.method shortens the prompt")
    _check_deepspeed(training)
    _check_fsdp(training)
    _check_steps(training)
    with blame("training.report_to", ConfigError):
        for tracker in get_reporting_integration_callbacks(training.report_to):
            tracker()
    names = [f"dataloader_{name}" for name in _LOADING]
    with blame(f"training.{', '.join(names)}", ConfigError):
        DataLoader(
            [0],  # type: ignore[arg-type]
            **{name: getattr(training, f"dataloader_{name}") for name in _LOADING},
        )
    if training.use_liger_kernel:
        need("training.use_liger_kernel", None, "liger_kernel", error=ConfigError)
    if recipe.model.attn_implementation == "flash_attention_2":
        need("model.attn_implementation: flash_attention_2", "flash", "flash_attn", error=ConfigError)
    with named("training.output_dir"):
        check_output_folder(str(training.output_dir), ConfigError)
    check_adapter(recipe)
    if recipe.model.projector is not None:
        with named("model.projector"):
            regular_file(recipe.model.projector, CheckpointError)
    with named("model.model_name_or_path"):
        folder = resolve_folder(recipe.model.model_name_or_path)
        check_start(folder, recipe.model)
    check_teacher(recipe, folder)
    return folder


def check_adapter(recipe: Recipe) -> None:
    """Whether adapters can be made: packages, options, and what they contradict.

    Raises:
        ConfigError: the message names the field.
    """
    chosen, training = recipe.model, recipe.training
    if chosen.bits is not None:
        need("model.bits", "quant", "bitsandbytes", error=ConfigError)
    if chosen.lora:
        with named("model"):
            check_lora(chosen.lora)
    if _zero_stage(training) == 3:
        if chosen.bits is not None:
            raise ConfigError("model.bits: quantised weights cannot be split by ZeRO-3; use a ZeRO-2 file")
        if str(chosen.lora.get("init_lora_weights")).startswith(FROM_WEIGHTS):
            raise ConfigError(
                "model.lora.init_lora_weights: ZeRO-3 splits the weights that it is computed from; use ZeRO-2"
            )


def _zero_stage(training: TrainingArguments) -> Any:
    given = training.deepspeed
    if not given:
        return None
    settings: Any = read_json(given, ConfigError, "deepspeed configuration") if isinstance(given, str) else given
    return (settings.get("zero_optimization") or {}).get("stage")


@contextmanager
def named(field: str) -> Iterator[None]:
    """Prefix an error with the name of its field."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{field}: {error}") from error


def check_compression(compression: CompressionArguments) -> list[Choice] | None:
    """Checks names of method, budget and switches; returns the budgets that a step may run under.

    Raises:
        UserError: unknown names, or settings without a method.
    """
    with named("compression.method"):
        method = find_method(compression.method)
    with named("compression.switches"):
        check_switches(method, compression.switches)
    if not method.stages:
        idle = [name for name in ("budget", "weights", "switches", "companion") if getattr(compression, name)]
        if idle:
            raise ConfigError(f"compression.{idle[0]}: method {method.name} keeps all tokens; it has no effect")
        return None
    if compression.budget is None:
        raise ConfigError(f"compression.budget is missing: method {compression.method} needs one (`duet budget list`)")
    with named("compression.budget"):
        choices = read_choices(compression.budget)
        if all(choice is None for choice in choices):
            raise ConfigError(f"only {ALL}; training with all tokens is `compression.method: none`")
    with named("compression.weights"):
        check_weights(compression.weights, choices)
    return choices


def check_space(model: nn.Module, training: TrainingArguments) -> None:
    """Check that the disk has room for a checkpoint with the optimizer's state, and for the final model.

    Raises:
        ConfigError: it has not.
    """
    learned = sum(size_of(value) for value in model.parameters() if value.requires_grad)
    weights = sum(size_of(value) * value.element_size() for value in model.parameters())
    state = 0 if training.save_only_model else 4 * _MOMENTS * learned
    check_output_folder(str(training.output_dir), ConfigError, space=2 * weights + state)


def _check_steps(training: TrainingArguments) -> None:
    """Build optimizer and schedule once, for one parameter."""
    whole = any(name in _value(training.optim) for name in _OF_A_MODEL)
    if whole and training.own_rates:
        raise ConfigError(f"training.{_rates(training)} has no effect with training.optim: {_value(training.optim)}")
    parameter = torch.nn.Parameter(torch.zeros(1))
    try:
        with blame(f"training.optim: {_value(training.optim)} with optim_args and adam_...", ConfigError):
            cls, options = Trainer.get_optimizer_cls_and_kwargs(training)
            optimizer: Any = cls([parameter], **options)
    except ConfigError as error:
        if not whole or isinstance(error.__cause__, ImportError):
            raise
        optimizer = torch.optim.SGD([parameter], lr=0.1)
    schedule = f"training.lr_scheduler_type: {_value(training.lr_scheduler_type)} with lr_scheduler_kwargs"
    with blame(schedule, ConfigError):
        warmup, options = training.get_warmup_steps(1000), training.lr_scheduler_kwargs
        get_scheduler(training.lr_scheduler_type, optimizer, warmup, 1000, options)  # type: ignore[arg-type]
    field = "training.activation_checkpointing_kwargs"
    given = training.activation_checkpointing_kwargs or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{field}: expected a mapping of keys to values, got {given!r}")
    for name in given:
        if name not in _CHECKPOINTING:
            raise ConfigError(f"{field}: {name!r}; {suggest(str(name), _CHECKPOINTING)}")


def _rates(training: TrainingArguments) -> str:
    return "mm_projector_lr" if training.mm_projector_lr is not None else "rates"


def _value(choice: Any) -> str:
    return str(getattr(choice, "value", choice))


def _check_fsdp(training: TrainingArguments) -> None:
    """Refuse FSDP in one process that no launcher has started."""
    if training.fsdp and training.parallel_mode != ParallelMode.DISTRIBUTED:
        raise ConfigError(
            "training.fsdp splits a model over processes: start them with torchrun --nproc_per_node N -m duet.train.run"
        )


def _check_deepspeed(training: TrainingArguments) -> None:
    """Refuse what LLaVA's DeepSpeed files are known to do silently (docs/training.md).

    Raises:
        ConfigError: the message names the file and says what to change.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and not training.deepspeed:
        raise ConfigError(
            "accelerate's own DeepSpeed section partitions a model only after every process has loaded all of it: "
            "launch with configs/accelerate/processes.yaml and set training.deepspeed"
        )
    given = training.deepspeed
    if not given:
        return
    named_file = isinstance(given, str) and not given.lstrip().startswith("{")
    where = f"training.deepspeed: {given}" if named_file else "training.deepspeed"
    settings: Any = given
    if isinstance(given, str):
        settings = (
            read_json(given, ConfigError, "deepspeed configuration")
            if named_file
            else parse_json(given, "training.deepspeed", ConfigError)
        )
    zero = settings.get("zero_optimization") or {}
    if "optimizer" in settings and training.own_rates:
        raise ConfigError(
            f"training.{_rates(training)} has no effect if training.deepspeed sets an optimizer: remove one of them"
        )
    if "scheduler" in settings:
        raise ConfigError(f"{where} has a section 'scheduler', which overrides training.lr_scheduler_type: remove it")
    if "gradient_clipping" not in settings:
        raise ConfigError(
            f"{where} names no gradient_clipping, so DeepSpeed clips at 1 whatever max_grad_norm says: set it to "
            '"auto" (for no clipping also training.max_grad_norm: 0)'
        )
    gathers = "stage3_gather_16bit_weights_on_model_save"
    misspelt = "gather_16bit_weights_on_model_save"
    if misspelt in zero or (zero.get("stage") == 3 and not zero.get(gathers)):
        raise ConfigError(f"{where}: set {gathers} to true in zero_optimization, or the run ends without a model")
