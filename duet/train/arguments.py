"""A training recipe as dataclasses, with LLaVA's names for what LLaVA has.

A recipe file has four sections, one per dataclass here: `model`, `data`, `compression`, `training`. Everything that
`transformers.TrainingArguments` knows (bf16, deepspeed, report_to, ...) may be set in `training`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from transformers import TrainingArguments as HFTrainingArguments
from transformers.utils import is_torch_bf16_gpu_available

from duet.backbones.qwen_asking import CHAT_TEMPLATE
from duet.config import ConfigError, build, convert
from duet.data.dataset import TOKENIZATIONS
from duet.data.video import MOST_FRAMES, frames_at
from duet.errors import suggest
from duet.extras import need
from duet.files import read_json
from duet.llava.prompts import ALIASES, TEMPLATES

DTYPES = ("float32", "bfloat16", "float16")
ATTENTION = ("sdpa", "eager", "flash_attention_2")
ASPECT_RATIOS = ("square", "pad")
CACHES = ("memory", "disk")
LOSSES = ("tokens", "original")
KINDS = ("llava", "llava_next", "video_llava")
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
    "cache_features_gb": (1e-9, 10**6),
    **dict.fromkeys(("teacher_weight", "teacher_temperature"), (1e-6, 1e6)),
}
#: Fields of transformers that had another name in 5.17.
CHECKPOINTING = {
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
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
#: Fields that transformers holds against the machine's devices and packages.
OF_THE_MACHINE = ("bf16", "fp16", "tf32", "deepspeed", "fsdp", "fsdp_config", "report_to", "use_liger_kernel")
_HUB = ("hub_model_id", "hub_token", "hub_private_repo", "hub_revision", "hub_always_push", "hub_strategy")


@dataclass
class ModelArguments:
    """The model, and which parts of it are trained."""

    model_name_or_path: str = ""
    """Folder or hub id: a model of any family, in the Hugging Face or the original layout; an adapter, which is merged
    first; or a LLaMA or Mistral, with `vision_tower`.
    """
    vision_tower: str | None = None
    """CLIP tower (for pictures, where there is also `video_tower`) to put before a language model; the projector is new
    then. In the original layout: the tower's folder, instead of the one that the checkpoint names.
    """
    video_tower: str | None = None
    """Tower for videos, for a Video-LLaVA from a language model."""
    kind: str = "llava"
    """What to assemble from a language model: `llava`, `llava_next` or `video_llava`."""
    model_base: str | None = None
    """Base model of an adapter or a projector, instead of the one that its files name."""
    projector: str | None = None
    """A trained projector to start with: `mm_projector.bin` of the first stage, here or in LLaVA's own runs."""
    freeze: tuple[str, ...] = ()
    """Parts (`tower`, `projector`, `decoder`) and prefixes of parameter names that stay fixed."""
    train: tuple[str, ...] = ()
    """Parts and prefixes that are trained; everything else is fixed. With `lora`: beside the adapter, by default the
    projector.
    """
    tune_mm_mlp_adapter: bool = False
    """LLaVA's name for `train: [projector]`."""
    lora: dict[str, Any] = field(default_factory=dict)
    """peft's options for adapters on the language model, e.g. `{r: 128, lora_alpha: 256, use_dora: true}`."""
    bits: int | None = None
    """4 or 8: quantise the language model's layers (bitsandbytes), for `lora`."""
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
        if self.train and self.tune_mm_mlp_adapter:
            raise ConfigError("train contradicts tune_mm_mlp_adapter, which trains the projector alone")
        if self.lora and self.tune_mm_mlp_adapter:
            raise ConfigError("lora contradicts tune_mm_mlp_adapter, which trains the projector alone")
        _check_choice("kind", self.kind, KINDS)
        if (self.kind == "video_llava") != (self.video_tower is not None):
            raise ConfigError("video_tower belongs to kind: video_llava: give both or none")
        if self.bits not in (None, 4, 8):
            raise ConfigError(f"bits is {self.bits}; quantised weights have 4 or 8")
        if self.bits is not None and not self.lora:
            raise ConfigError("bits: quantised weights cannot be trained themselves; add lora")


@dataclass
class DataArguments:
    """Conversation files and how they become batches."""

    data_path: str | tuple[str, ...] = ""
    """One or several conversation files, or patterns of them (`train-*.parquet`); `rows.json%50` takes half of a file's
    rows (docs/data.md).
    """
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
    """Steps between evaluations on the held-out file and on benchmarks."""
    eval_benchmarks: tuple[str, ...] = ()
    """Names of benchmarks (`duet eval --list`) whose score is logged, too."""
    eval_benchmark_folder: str = "./playground/data/eval"
    """Their files, as for `duet eval --data`."""
    eval_limit: int = 200
    """Most questions of each, drawn evenly over its categories."""
    min_pixels: int | None = None
    """Smaller pictures are enlarged to it; for families whose pictures have any size (Qwen-VL)."""
    max_pixels: int | None = None
    """Larger pictures are made smaller."""
    fps: float | None = None
    """Frames per second of videos; None: the family's rule."""
    min_frames: int | None = None
    """Fewest frames of a video, with `fps`."""
    max_frames: int | None = None
    """Most frames of a video, with `fps`."""

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
        if not 1 <= self.eval_limit <= _MANY:
            raise ConfigError(f"eval_limit is {self.eval_limit}; expected a number of questions from 1 to {_MANY:g}")
        if self.fps is None and (self.min_frames or self.max_frames):
            raise ConfigError("min_frames and max_frames have no effect without fps")
        for name in ("min_pixels", "max_pixels", "fps", "min_frames", "max_frames"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= _MANY:
                raise ConfigError(f"{name} is {value}; expected more than 0")
        if (self.min_frames or 1) > (self.max_frames or _MANY):
            raise ConfigError(f"min_frames {self.min_frames} is above max_frames {self.max_frames}")
        if self.eval_image_folder is not None and not self.eval_data_path:
            raise ConfigError("eval_image_folder has no effect without eval_data_path")

    @property
    def frames(self) -> Callable[[float], int] | None:
        """How many frames of a video of so many seconds, by `fps`; None: the family's rule."""
        return None if self.fps is None else frames_at(self.fps, self.min_frames or 1, self.max_frames or MOST_FRAMES)


@dataclass
class CompressionArguments:
    """Token compression in the training loop (paper Table 3); `method: none` trains with all tokens."""

    method: str = "none"
    """A name from `duet.methods()`."""
    budget: str | float | dict[str, Any] | tuple[Any, ...] | None = None
    """The name of a budget (`duet.budgets()`), the average of visual tokens per layer, or fields of a `duet.Budget`. A
    list of these, of `none` (all tokens) and of ranges (`{average: [12, 40]}`) is drawn from at every step.
    """
    weights: tuple[float, ...] = ()
    """How likely each budget of the list is; without weights all are equally likely."""
    switches: dict[str, Any] = field(default_factory=dict)
    """Where paper and released code differ (`duet.switches.Switches`), e.g. `{positions: keep}`; or the method's
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
    """Learning rate of the projector; None means `learning_rate`. The same as `rates: {projector: ...}`."""
    rates: dict[str, float] = field(default_factory=dict)
    """Learning rates by part or prefix, e.g. `{tower: 2.0e-6}`; of all others it is `learning_rate`."""
    group_by_modality_length: bool = False
    """Batches of similar length, text-only rows apart from rows with pictures (LLaVA's sampler)."""
    loss: str = "tokens"
    """What a step's loss is the mean of: `tokens`, all learned tokens of the step, or `original`, the means of the
    micro-batches, as in LLaVA: tokens in batches with few of them weigh more.
    """
    cache_features: str | None = None
    """`memory` (the host's) or `disk`: keep a frozen tower's features by picture; later epochs do without the tower."""
    cache_features_gb: float = 16
    """GiB for them, over all processes; pictures beyond it are encoded every time."""
    teacher: str | None = None
    """Adds to the loss how far the answers are from those of a teacher with all visual tokens (duet/train/teacher.py):
    `self`, the trained weights themselves, or a checkpoint of the same family and vocabulary.
    """
    teacher_weight: float = 1.0
    """What the divergence is multiplied by, beside the cross entropy."""
    teacher_temperature: float = 1.0
    """Logits of both are divided by it; the divergence is multiplied by its square."""
    resume: bool = True
    """Continue from the newest checkpoint in `output_dir` if there is one."""
    activation_checkpointing: bool | None = None  # type: ignore[assignment]  # 5.17 lacks it
    """Keep only what enters a layer, and run the layer again for its gradients."""
    activation_checkpointing_kwargs: dict[str, Any] | None = None  # type: ignore[assignment]
    """Options of torch's `checkpoint`."""
    gradient_checkpointing: bool | None = None  # type: ignore[assignment]
    """The older name of `activation_checkpointing`."""
    gradient_checkpointing_kwargs: dict[str, Any] | None = None  # type: ignore[assignment]
    """The older name of `activation_checkpointing_kwargs`."""
    remove_unused_columns: bool = False
    fsdp: bool | str | None = None  # type: ignore[assignment]  # transformers says text, and means true

    def __post_init__(self) -> None:
        if self.mm_projector_lr is not None and "projector" in self.rates:
            raise ConfigError("mm_projector_lr and rates.projector are the same number: give one of them")
        for name, rate in self.rates.items():
            if not 0 < rate <= 1e3:
                raise ConfigError(f"rates.{name} is {rate}; expected a number from 1e-20 to 1000")
        if not (self.output_dir or "").strip():
            raise ConfigError("output_dir is missing: name the folder of all results")
        for new, old in CHECKPOINTING.items():
            _unite(self, new, old)
        _check_training(self)
        self.adam_beta1, self.adam_beta2 = float(self.adam_beta1), float(self.adam_beta2)  # torch refuses integers
        super().__post_init__()
        for new, old in CHECKPOINTING.items():
            if hasattr(HFTrainingArguments, new):  # then nothing reads the old name, and a saved recipe has one
                setattr(self, old, None)

    @property
    def own_rates(self) -> dict[str, float]:
        """Learning rates by part or prefix, LLaVA's for the projector included."""
        return self.rates if self.mm_projector_lr is None else {**self.rates, "projector": self.mm_projector_lr}


def _unite(training: TrainingArguments, new: str, old: str) -> None:
    """One field under two names: transformers 5.17 reads the old one, later versions warn of it.

    Raises:
        ConfigError: two values.
    """
    given = {name: getattr(training, name) for name in (new, old) if getattr(training, name) is not None}
    if len(given) == 2 and given[new] != given[old]:
        raise ConfigError(f"{old}: {given[old]} and {new}: {given[new]} are one field: give {new} alone")
    value = next(iter(given.values()), None if new.endswith("kwargs") else False)
    setattr(training, new, value)
    setattr(training, old, value)


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
    _check_choice("loss", training.loss, LOSSES)
    if training.bf16 and not training.use_cpu and not is_torch_bf16_gpu_available():
        raise ConfigError("bf16: this machine has no GPU that computes in it; to train on the CPU set use_cpu: true")
    if training.cache_features is not None:
        _check_choice("cache_features", training.cache_features, CACHES)
    for name in ("teacher_weight", "teacher_temperature"):
        if training.teacher is None and getattr(training, name) != 1:
            raise ConfigError(f"{name} has no effect without a teacher: name it in training.teacher")
    if training.group_by_modality_length and training.train_sampling_strategy != "random":
        raise ConfigError("train_sampling_strategy has no effect with group_by_modality_length: remove one of them")
    if training.deepspeed is not None:
        need("deepspeed", "train", "deepspeed", error=ConfigError)
        if isinstance(training.deepspeed, str) and not training.deepspeed.lstrip().startswith("{"):
            read_json(training.deepspeed, ConfigError, "deepspeed configuration")


@dataclass
class Recipe:
    """One training run."""

    training: TrainingArguments
    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    compression: CompressionArguments = field(default_factory=CompressionArguments)


def read_elsewhere(settings: Mapping[str, Any], source: str) -> Recipe:
    """A recipe to look at, on a machine without the training's GPUs and packages.

    Args:
        settings: its sections.
        source: for messages.

    Raises:
        ConfigError: an unusable entry.
    """
    given = settings.get("training")
    if not isinstance(given, Mapping):
        return build(Recipe, settings, source)
    kept = {name: given[name] for name in (*OF_THE_MACHINE, "use_cpu") if name in given}
    training = {name: value for name, value in given.items() if name not in kept}
    recipe = build(Recipe, {**settings, "training": {**training, "use_cpu": True, "report_to": "none"}}, source)
    for name, value in {"use_cpu": False, **convert(TrainingArguments, kept, f"{source}: training")}.items():
        setattr(recipe.training, name, value)
    return recipe
