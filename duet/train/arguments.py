"""A training recipe as dataclasses, with LLaVA's names for what LLaVA has.

A recipe file has four sections, one per dataclass here: `model`, `data`, `compression`, `training`. Everything that
`transformers.TrainingArguments` knows (bf16, deepspeed, report_to, ...) may be set in `training`.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from importlib.util import find_spec
from typing import Any

from transformers import TrainingArguments as HFTrainingArguments

from duet.backbones.qwen_asking import CHAT_TEMPLATE
from duet.config import ConfigError
from duet.data.dataset import TOKENIZATIONS
from duet.errors import suggest
from duet.files import read_json
from duet.llava.prompts import ALIASES, TEMPLATES

DTYPES = ("float32", "bfloat16", "float16")
ATTENTION = ("sdpa", "eager", "flash_attention_2")
ASPECT_RATIOS = ("square", "pad")
_MANY = 10**9
#: Smallest and largest values of numbers; an omitted None stays None.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), (1, 10**6)),
    **dict.fromkeys(("gradient_accumulation_steps", "save_total_limit", "ddp_timeout"), (1, _MANY)),
    **dict.fromkeys(("logging_steps", "save_steps", "num_train_epochs"), (1e-9, _MANY)),
    **dict.fromkeys(("learning_rate", "mm_projector_lr"), (1e-20, 1e3)),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), (0, 1 - 1e-9)),
    **dict.fromkeys(("seed", "data_seed"), (0, 2**32 - 1)),
    **dict.fromkeys(("dataloader_num_workers", "dataloader_prefetch_factor"), (0, 1024)),
    **dict.fromkeys(("neftune_noise_alpha", "max_grad_norm", "weight_decay"), (0, 1e6)),
    "adam_epsilon": (1e-30, 1),
    "label_smoothing_factor": (0, 1 - 1e-9),
    "warmup_steps": (0, _MANY),
    "torch_empty_cache_steps": (1, _MANY),
    "ddp_bucket_cap_mb": (1, 10**6),
    "model_max_length": (2, 10**8),
}
_LOOKS = "held-out evaluation is set by data.eval_data_path and data.eval_every"
#: Fields of transformers without effect here, and what to use instead.
IDLE = {
    **dict.fromkeys(("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps"), _LOOKS),
    **dict.fromkeys(("eval_do_concat_batches", "eval_use_gather_object", "batch_eval_metrics"), _LOOKS),
    **dict.fromkeys(("do_eval", "do_predict", "prediction_loss_only", "include_for_metrics", "label_names"), _LOOKS),
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval", "load_best_model_at_end"), _LOOKS),
    **dict.fromkeys(("metric_for_best_model", "greater_is_better"), _LOOKS),
    "do_train": "this program always trains",
    "resume_from_checkpoint": "training.resume continues from the newest checkpoint in output_dir",
    "length_column_name": "training.group_by_modality_length has the lengths",
    "local_rank": "torchrun sets it",
}
_HUB = ("hub_model_id", "hub_token", "hub_private_repo", "hub_revision", "hub_always_push", "hub_strategy")


@dataclass
class ModelArguments:
    """The model, and which parts of it are trained."""

    model_name_or_path: str = ""
    """A Hugging Face folder or hub id with model and processor."""
    freeze: tuple[str, ...] = ()
    """Parameter name prefixes that stay fixed, e.g. `model.vision_tower`. A prefix without a match is an error."""
    tune_mm_mlp_adapter: bool = False
    """Train the projector only (LLaVA's first stage); everything else is frozen."""
    attn_implementation: str | None = None
    """`sdpa`, `eager` or `flash_attention_2`; None lets transformers choose."""
    dtype: str = "float32"
    """Type of the master weights; use `training.bf16` for mixed precision."""

    def __post_init__(self) -> None:
        if not self.model_name_or_path.strip():
            raise ConfigError("model_name_or_path is missing: name a checkpoint folder or hub id")
        _check_choice("dtype", self.dtype, DTYPES)
        if self.attn_implementation is not None:
            _check_choice("attn_implementation", self.attn_implementation, ATTENTION)
        if self.freeze and self.tune_mm_mlp_adapter:
            raise ConfigError("freeze has no effect with tune_mm_mlp_adapter, which freezes all but the projector")


@dataclass
class DataArguments:
    """Conversation files and how they become batches."""

    data_path: str | tuple[str, ...] = ""
    """One or several conversation files (docs/data.md); `rows.json%50` takes half of a file's rows."""
    image_folder: str = ""
    """Folder that the rows' pictures are relative to."""
    video_folder: str | None = None
    """Folder that the rows' videos are relative to; None means `image_folder`."""
    version: str | None = None
    """Prompt template: `plain` for captions, `vicuna_v1` (or `v1`) for conversations; None: the checkpoint's own."""
    tokenization: str = "right"
    """`original`: token ids and labels of the code that the published checkpoints were trained with (docs/data.md)."""
    bad_rows: float = 0.001
    """Largest share of unusable rows that are left out with a warning; above it training does not start."""
    image_aspect_ratio: str = "square"
    """`pad` pads pictures to squares first, as in LLaVA-1.5; `square` leaves this to the processor."""
    eval_data_path: str = ""
    """Held-out conversation file; the share of exactly right answers is logged during training, by `task`."""
    eval_image_folder: str | None = None
    """Folder of its pictures; None means `image_folder`."""
    eval_every: int = 500
    """Steps between evaluations on the held-out file."""

    def __post_init__(self) -> None:
        paths = (self.data_path,) if isinstance(self.data_path, str) else self.data_path
        if not paths or not all(path.strip() for path in paths):
            raise ConfigError("data_path is missing: name one or several conversation files")
        if self.version is not None:
            _check_choice("version", self.version, (*TEMPLATES, *ALIASES, CHAT_TEMPLATE))
        _check_choice("tokenization", self.tokenization, TOKENIZATIONS)
        if not 0 <= self.bad_rows < 1:
            raise ConfigError(f"bad_rows is {self.bad_rows}; expected a share from 0 to less than 1")
        _check_choice("image_aspect_ratio", self.image_aspect_ratio, ASPECT_RATIOS)
        if not 1 <= self.eval_every <= _MANY:
            raise ConfigError(f"eval_every is {self.eval_every}; expected a number of steps from 1 to {_MANY:g}")
        if self.eval_image_folder is not None and not self.eval_data_path:
            raise ConfigError("eval_image_folder has no effect without eval_data_path")


@dataclass
class CompressionArguments:
    """Token compression in the training loop (paper Table 3); `method: none` trains with all tokens."""

    method: str = "none"
    """A name from `duet.methods()`."""
    budget: str | float | dict[str, Any] | tuple[Any, ...] | None = None
    """The name of a budget (`duet.budgets()`), the average of visual tokens per layer, or fields of a `duet.Budget`. A
    list of these, of `none` (all tokens) and of ranges (`{average: [12, 40]}`) is drawn from at every step.
    """
    switches: dict[str, Any] = field(default_factory=dict)
    """Where paper and released code differ (`duet.registry.Switches`), e.g. `{positions: keep}`; or the method's
    own.
    """
    companion: str | None = None
    """CLIP checkpoint that the model's tower comes from; for methods that need its text tower."""


@dataclass
class TrainingArguments(HFTrainingArguments):
    """Hugging Face's arguments with LLaVA's additions and this project's defaults."""

    model_max_length: int = 2048
    """Longer examples are truncated."""
    mm_projector_lr: float | None = None
    """Learning rate of the projector; None means `learning_rate`."""
    group_by_modality_length: bool = False
    """Batches of similar length, text-only rows apart from rows with pictures (LLaVA's sampler)."""
    resume: bool = True
    """Continue from the newest checkpoint in `output_dir` if there is one."""
    remove_unused_columns: bool = False

    def __post_init__(self) -> None:
        if not (self.output_dir or "").strip():
            raise ConfigError("output_dir is missing: name the folder of all results")
        _check_training(self)
        self.adam_beta1, self.adam_beta2 = float(self.adam_beta1), float(self.adam_beta2)  # torch refuses integers
        super().__post_init__()


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; {suggest(value, choices)}")


def _check_training(training: TrainingArguments) -> None:
    """Checks ranges, fields without effect and DeepSpeed's file, before transformers uses them.

    Raises:
        ConfigError: the message names the field.
    """
    for name, (least, most) in RANGES.items():
        value: Any = getattr(training, name, None)
        if value is not None and not least <= value <= most:
            raise ConfigError(f"{name} is {value}; expected a number from {least:g} to {most:g}")
    if training.max_steps != -1 and not 1 <= training.max_steps <= _MANY:
        raise ConfigError(f"max_steps is {training.max_steps}; expected at least 1, or -1 for num_train_epochs")
    defaults = {each.name: None if each.default is MISSING else each.default for each in fields(training)}
    hub = () if training.push_to_hub else _HUB
    for name in (*IDLE, *hub):
        value = getattr(training, name, None)
        if value and str(getattr(value, "value", value)) != str(defaults.get(name)):
            instead = IDLE.get(name, "push_to_hub is off")
            raise ConfigError(f"{name} is {value!r}, which has no effect here: {instead}")
    if training.group_by_modality_length and training.train_sampling_strategy != "random":
        raise ConfigError("train_sampling_strategy has no effect with group_by_modality_length: remove one of them")
    if training.deepspeed is not None:
        if find_spec("deepspeed") is None:
            raise ConfigError('deepspeed is not installed: pip install "duet-vlm[train]"')
        if isinstance(training.deepspeed, str) and not training.deepspeed.lstrip().startswith("{"):
            read_json(training.deepspeed, ConfigError, "DeepSpeed configuration")


@dataclass
class Recipe:
    """One training run."""

    training: TrainingArguments
    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    compression: CompressionArguments = field(default_factory=CompressionArguments)
