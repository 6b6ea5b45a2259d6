"""A training recipe as dataclasses, with LLaVA's names for what LLaVA has.

A recipe file has four sections, one per dataclass here: `model`, `data`, `compression`, `training`. Everything that
`transformers.TrainingArguments` knows (bf16, deepspeed, report_to, ...) may stand in `training`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments as HFTrainingArguments


@dataclass
class ModelArguments:
    """What is trained, and which parts of it."""

    model_name_or_path: str = ""
    """A Hugging Face folder or hub id with model and processor."""
    freeze: tuple[str, ...] = ()
    """Parameter name prefixes that stay fixed, e.g. `model.vision_tower`. A prefix that fits nothing is an error."""
    tune_mm_mlp_adapter: bool = False
    """Train the projector only (LLaVA's first stage); everything else is frozen."""
    attn_implementation: str | None = None
    """`sdpa`, `eager` or `flash_attention_2`; None lets transformers choose."""
    dtype: str = "float32"
    """Type of the master weights; use `training.bf16` for mixed precision."""


@dataclass
class DataArguments:
    """Conversation files and how they become batches."""

    data_path: str | tuple[str, ...] = ""
    """One or several LLaVA conversation files."""
    image_folder: str = ""
    """Folder that the rows' pictures are relative to."""
    version: str = "vicuna_v1"
    """Prompt template: `vicuna_v1` for conversations, `plain` for captions."""
    image_aspect_ratio: str = "square"
    """`pad` pads pictures to squares first, as LLaVA-1.5; `square` leaves them to the processor."""
    eval_data_path: str = ""
    """Held-out conversation file; the share of exactly right answers is logged during training, by `task`."""
    eval_image_folder: str | None = None
    """Folder of its pictures; None means `image_folder`."""
    eval_every: int = 500
    """Steps between two looks at the held-out file."""


@dataclass
class CompressionArguments:
    """Token compression in the training loop (paper Table 3); `method: none` trains with all tokens."""

    method: str = "none"
    """A name from `duet.methods()`."""
    budget: str | dict[str, Any] | None = None
    """The name of a budget (`duet.budgets()`), or the fields of a `duet.Budget`."""


@dataclass
class TrainingArguments(HFTrainingArguments):
    """Hugging Face's arguments with LLaVA's additions and this project's defaults."""

    model_max_length: int = 2048
    """Longer examples are cut."""
    mm_projector_lr: float | None = None
    """Learning rate of the projector; None means `learning_rate`."""
    group_by_modality_length: bool = False
    """Batches of similar length, text-only rows apart from rows with pictures (LLaVA's sampler)."""
    resume: bool = True
    """Continue from the newest checkpoint in `output_dir` if there is one."""
    remove_unused_columns: bool = False


@dataclass
class Recipe:
    """One training run."""

    training: TrainingArguments
    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    compression: CompressionArguments = field(default_factory=CompressionArguments)
