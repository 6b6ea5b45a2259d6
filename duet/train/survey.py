"""What a recipe is going to train on, and what that will cost; nothing is loaded but the tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from duet.backbones.qwen_asking import QwenAsking
from duet.budget import Backbone, Budget
from duet.checkpoints.adapters import base_of, is_adapter
from duet.checkpoints.files import CheckpointError, resolve_folder
from duet.checkpoints.sanity import read_config
from duet.data.lengths import Length, measure
from duet.data.load import Loaded, find_sources, missing_files, original_parser, scan_rows
from duet.data.media_check import Facts, inspect
from duet.data.original.encode import FRAMES
from duet.data.original.tokenizer import NO_LIMIT
from duet.data.preview import Previewer
from duet.data.rows import IMAGE, VIDEO, Row, parse_row
from duet.engine.compat import count_image_tokens
from duet.families import imported, model_types
from duet.files import blame, read_json
from duet.train.arguments import Recipe
from duet.train.build import is_language_model
from duet.train.estimate import Memory, Plan, memory_of, row_flops, sizes_of, zero_of
from duet.train.start import family_of, limit_pixels

#: Token counts are rounded up to this before costs are summed: rows of about the same size cost the same.
STEP = 16
#: Families whose pictures all have the same number of tokens.
FIXED = ("llava", "video_llava")


@dataclass
class Survey:
    """What was found.

    Attributes:
        files: rows used of each file.
        rows: those that will be trained; faults: what is wrong with the others.
        pictures, videos: distinct files; text_only: rows without any.
        text, learned, visual: tokens of one epoch; tokens of the model's pictures before compression.
        lengths: of all rows, with visual tokens; cut: rows longer than `model_max_length`.
        steps: of the whole training.
        flops: of the whole training, by method and budget.
        parts: numbers of each part, and those that are trained.
        memory: on each GPU, for a batch of the longest rows.
    """

    files: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    faults: list[str] = field(default_factory=list)
    pictures: int = 0
    videos: int = 0
    text_only: int = 0
    text: int = 0
    learned: int = 0
    visual: int = 0
    lengths: list[int] = field(default_factory=list)
    cut: int = 0
    steps: int = 0
    flops: dict[str, float] = field(default_factory=dict)
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    memory: Memory | None = None

    @property
    def share(self) -> float:
        """Share of bad rows."""
        return len(self.faults) / max(self.rows + len(self.faults), 1)


class Surveyor:
    """Looks at a recipe's data.

    Args:
        recipe: of the training.
        deep: decode every picture and video.
        gpus: processes of the run.
        workers: threads that read files.
        cache: folder of the lengths.
    """

    def __init__(
        self, recipe: Recipe, deep: bool = False, gpus: int = 1, workers: int = 8, cache: Path | None = None
    ) -> None:
        self.recipe, self.deep, self.gpus, self.workers, self.cache = recipe, deep, gpus, workers, cache
        self.folder = _base(resolve_folder(recipe.model.model_name_or_path, weights=False), recipe)
        self.assembled = is_language_model(read_config(self.folder))
        self.family = recipe.model.kind if self.assembled else family_of(self.folder)
        self.backbone = Backbone.from_config(self._config(), pictures=1)

    def survey(self, budgets: Mapping[str, Budget | None]) -> Survey:
        """Everything.

        Args:
            budgets: to compare, by name; the first is the recipe's own.

        Raises:
            UserError: unreadable files, or no usable row at all.
        """
        loaded = self._rows()
        lengths = self._lengths()
        facts = self._facts(loaded.rows)
        found = Survey(faults=list(loaded.faults))
        sizes: list[tuple[int, int, tuple[int, ...]]] = []
        for row in loaded.rows:
            length = lengths[row.source]
            fault = self._fault(row, length, facts)
            pictures = () if fault else self._visual(row, facts)
            total = length.text + sum(pictures)
            limit = self.recipe.training.model_max_length
            if fault is None and pictures and total - length.text > limit:
                fault = f"{row.source} (id {row.name!r}): its {sum(pictures)} visual tokens do not fit into {limit}"
            if fault is not None:
                found.faults.append(fault)
                continue
            self._count(found, row, length, pictures, total)
            sizes.append((length.text, length.learned, pictures))
        used = {kind: {path for k, path in facts if k == kind} for kind in (IMAGE, VIDEO)}
        found.pictures, found.videos = len(used[IMAGE]), len(used[VIDEO])
        self._cost(found, sizes, budgets)
        return found

    def _count(self, found: Survey, row: Row, length: Length, pictures: Sequence[int], total: int) -> None:
        file = row.source.rpartition(", row ")[0]
        limit = self.recipe.training.model_max_length
        found.files[file] = found.files.get(file, 0) + 1
        found.rows += 1
        found.text_only += not pictures
        found.text += length.text
        found.learned += length.learned
        found.visual += sum(pictures)
        found.lengths.append(min(total, limit))
        found.cut += total > limit

    def _rows(self) -> Loaded:
        data = self.recipe.data
        parse: Callable[[Any, str], Row] = parse_row
        if data.tokenization == "original":
            parse = original_parser(self.family, data.version)
        check = missing_files(data.image_folder, data.video_folder)
        return scan_rows(data.data_path, self.recipe.training.seed, parse, check)

    def _lengths(self) -> dict[str, Length]:
        """Of every row, by file and number."""
        data = self.recipe.data
        original = data.tokenization == "original"
        limit = self.recipe.training.model_max_length if original else NO_LIMIT - 1
        version = data.version or ("v1" if self.assembled else None)
        previewer = Previewer(self.folder, version, data.tokenization, limit, not self.assembled)
        found = {}
        for file in [source.path for source in find_sources(data.data_path)]:
            for place, length in enumerate(measure(previewer, file, self.cache)):
                found[f"{file}, row {place}"] = length
        return found

    def _facts(self, rows: Sequence[Row]) -> Mapping[tuple[str, Path], Facts]:
        return inspect((file for row in rows for file in self._files(row)), self.deep, self.workers)

    def _files(self, row: Row) -> list[tuple[str, Path]]:
        data = self.recipe.data
        videos = data.image_folder if data.video_folder is None else data.video_folder
        pictures = [(IMAGE, Path(data.image_folder, name)) for name in row.images]
        return [*pictures, *((VIDEO, Path(videos, name)) for name in row.videos)]

    def _fault(self, row: Row, length: Length, facts: Mapping[tuple[str, Path], Facts]) -> str | None:
        named = f"{row.source} (id {row.name!r})"
        broken = next((facts[file].fault for file in self._files(row) if facts[file].fault), None)
        if broken is not None:
            return f"{named}: {broken}"
        if length.left_out is not None:
            return length.left_out if row.source in length.left_out else f"{named}: {length.left_out}"
        return None if length.learned else f"{named}: without a label"

    def _visual(self, row: Row, facts: Mapping[tuple[str, Path], Facts]) -> tuple[int, ...]:
        """Visual tokens of each picture, crop or frame."""
        if self.family in FIXED:
            return (self.backbone.known_patches,) * (len(row.images) + FRAMES * len(row.videos))
        sizes = []
        for kind, path in self._files(row):
            found = facts[kind, path]
            tokens = self._tokens(found.height, found.width)
            frames = self._frames(found.seconds) if kind == VIDEO else 0
            sizes += [tokens] * (max(frames // 2, 1) if kind == VIDEO else 1)  # two frames share their tokens
        return tuple(sizes)

    def _frames(self, seconds: float) -> int:
        rule = self.recipe.data.frames or QwenAsking(None, None).frames
        return rule(seconds)

    def _tokens(self, height: int, width: int) -> int:
        """Visual tokens of a picture, of a family whose pictures differ in size."""
        processor = self._processor
        if self.family == "llava_next":
            return count_image_tokens(processor, [(height, width)])[0]
        pictures = processor.image_processor
        return pictures.get_number_of_image_patches(height, width, {}) // pictures.merge_size**2

    @cached_property
    def _processor(self) -> Any:
        """What makes pixels; of Qwen only its part for pictures, since the one for videos needs torchvision.

        Raises:
            CheckpointError: the folder has none.
        """
        from transformers import AutoImageProcessor, AutoProcessor

        if self._is_original:
            return self._described[1]
        with blame(f"the processor of {self.folder}", CheckpointError, "save the model in the Hugging Face layout"):
            if self.family == "llava_next":
                return AutoProcessor.from_pretrained(self.folder, backend="pil", trust_remote_code=False)
            pictures = AutoImageProcessor.from_pretrained(self.folder, backend="pil", trust_remote_code=False)
        processor = SimpleNamespace(image_processor=pictures)
        limit_pixels(processor, self.recipe.data)
        return processor

    @property
    def _is_original(self) -> bool:
        """Whether the folder has the original layout, or is a language model to put a tower before."""
        return "vision_config" not in read_config(self.folder)

    @cached_property
    def _described(self) -> tuple[Any, Any]:
        """Stock configuration and processor of a LLaVA-NeXT that is not in the Hugging Face layout."""
        module = str(model_types()[self.family].builder).partition(":")[0]
        chosen, kind = self.recipe.model, self.family if self.assembled else None
        return imported(f"{module}:describe")(self.folder, kind=kind, tower=chosen.vision_tower, base=chosen.model_base)

    def _config(self) -> Any:
        """What `Backbone.from_config` takes; of an original folder, or a language model with a tower, put together."""
        settings = read_config(self.folder)
        if not self._is_original:
            return self.folder
        if self.family == "llava_next":
            return self._described[0]
        named = self.recipe.model.vision_tower or settings.get("mm_image_tower") or settings.get("mm_vision_tower")
        tower = read_config(resolve_folder(str(named), weights=False))
        text = {**settings, "model_type": "llama"}
        eyes = tower.get("vision_config", tower)
        vision = {"model_type": "clip_vision_model", **eyes}
        return {"model_type": self.family, "text_config": text, "vision_config": vision}

    def plan(self) -> Plan:
        """How the recipe trains."""
        model, training = self.recipe.model, self.recipe.training
        sizes = sizes_of(self.backbone)
        settings = training.deepspeed
        stage, offloaded = zero_of(read_json(settings) if isinstance(settings, str) else settings)
        return Plan(
            sizes=sizes,
            trained=_trained(sizes, model, self.backbone),
            checkpointing=bool(training.activation_checkpointing),
            dtype=model.dtype,
            mixed=bool(training.bf16 or training.fp16),
            stage=stage,
            offloaded=offloaded,
            gpus=self.gpus,
            batch=training.per_device_train_batch_size,
            accumulation=training.gradient_accumulation_steps,
            taught=training.teacher is not None,
        )

    def _cost(
        self, found: Survey, sizes: Sequence[tuple[int, int, tuple[int, ...]]], budgets: Mapping[str, Budget | None]
    ) -> None:
        plan, training = self.plan(), self.recipe.training
        per_step = plan.gpus * plan.batch * plan.accumulation
        per_epoch = max(-(-found.rows // per_step), 1)
        found.steps = training.max_steps if training.max_steps > 0 else round(per_epoch * training.num_train_epochs)
        found.parts = {part: (size, plan.trained.get(part, 0)) for part, size in plan.sizes.items()}
        epochs = found.steps / per_epoch
        groups = Counter((_up(text), _up(learned), tuple(map(_up_small, shapes))) for text, learned, shapes in sizes)
        for name, budget in budgets.items():
            found.flops[name] = epochs * sum(
                count * row_flops(self.backbone, budget, text, learned, shapes, plan)
                for (text, learned, shapes), count in groups.items()
            )
        if not sizes:
            return
        own = next(iter(budgets.values()))
        longest = max(sizes, key=lambda size: size[0] + sum(size[2]))
        entering = longest[0] + self._entering(longest[2], own)
        tokens = plan.batch * min(entering, training.model_max_length)
        found.memory = memory_of(plan, tokens, plan.batch * longest[1], self.backbone)

    def _entering(self, pictures: Sequence[int], budget: Budget | None) -> int:
        if budget is None or not pictures:
            return sum(pictures)
        return budget.entered(
            replace(self.backbone, sizes=tuple(pictures), patches=max(pictures), pictures=len(pictures))
        )


def _up(count: int) -> int:
    return -(-count // STEP) * STEP


def _up_small(count: int) -> int:
    return count if count % 64 == 0 else _up(count)


def _base(folder: Path, recipe: Recipe) -> Path:
    if is_adapter(folder):
        return resolve_folder(base_of(folder, recipe.model.model_base), weights=False)
    return folder


def _trained(sizes: Mapping[str, int], model: Any, backbone: Backbone) -> dict[str, int]:
    """Numbers of each part that are trained; a prefix of a part's parameters counts as the whole part."""
    if model.lora:
        rank, decoder = int(model.lora.get("r", 64)), backbone.decoder
        queries, shared = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
        ends = 2 * (decoder.width + queries) + 2 * (decoder.width + shared) + 3 * (decoder.width + decoder.mlp_width)
        found = {"decoder": rank * ends * decoder.layers}
        names = model.train or ("projector",)
        return {**found, **{part: size for part, size in sizes.items() if part != "decoder" and part in names}}
    wanted = ("projector",) if model.tune_mm_mlp_adapter else tuple(model.train)
    fixed = [_part_of(name) for name in model.freeze]
    chosen = [_part_of(name) for name in wanted] or list(sizes)
    return {part: size for part, size in sizes.items() if part in chosen and part not in fixed}


def _part_of(name: str) -> str:
    """The part of a prefix such as `model.vision_tower`."""
    marks = {"tower": ("tower", "visual"), "projector": ("projector", "merger")}
    found = [part for part, words in marks.items() if any(word in name for word in words)]
    return found[-1] if found else "decoder"
