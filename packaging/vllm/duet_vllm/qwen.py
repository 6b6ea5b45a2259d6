"""Qwen2.5-VL in vLLM with stage 1 on every picture, and on every two frames of a video."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import PromptReplacement

from duet.backbones import qwen
from duet.edit import NONE
from duet.types import Unit
from duet_vllm import positions
from duet_vllm.checks import check_settings
from duet_vllm.cpu import let_cpu_runner_ask
from duet_vllm.plan import Plan, read_plan
from duet_vllm.reduce import check_count, reduce
from duet_vllm.towers import QwenTower

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

#: Patches that go through the tower together: vLLM counts a picture by what is left of it.
MOST_PATCHES = 1 << 16
#: Tells vLLM's runner to ask the model for positions; nothing is pruned at this rate.
ASKS_FOR_POSITIONS = 1e-6


def units_of(grid: Sequence[int], merge: int) -> list[int]:
    """Visual tokens of each picture or temporal patch: `grid` is times, height and width in patches."""
    times, height, width = (int(size) for size in grid)
    return [height // merge * (width // merge)] * times


class Info(Qwen2_5_VLProcessingInfo):
    """Counts the placeholders that stage 1 leaves."""

    @cached_property
    def plan(self) -> Plan:
        """Read once per process."""
        return read_plan(self.get_hf_config())

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """Of the largest picture, and of a video with the most frames."""
        image_processor = self.get_image_processor()
        largest = self.get_image_size_with_most_features()
        size, merge = self.get_hf_config().vision_config.patch_size, image_processor.merge_size
        patches = (largest.height // size, largest.width // size)
        frames = self.get_num_frames_with_most_features(seq_len, mm_counts)
        times = max(-(-frames // self.get_hf_config().vision_config.temporal_patch_size), 1)
        return {
            "image": self.plan.count(units_of((1, *patches), merge)),
            "video": self.plan.count(units_of((times, *patches), merge)),
        }


class Processor(Qwen2_5_VLMultiModalProcessor):
    """Repeats a placeholder as often as stage 1 leaves tokens."""

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any) -> Any:
        processor = self.info.get_hf_processor(**hf_processor_mm_kwargs)
        merge = self.info.get_image_processor(**hf_processor_mm_kwargs).merge_size
        vocabulary = self.info.get_tokenizer().get_vocab()
        tokens = {"image": vocabulary[processor.image_token], "video": vocabulary[processor.video_token]}

        def replacement(number: int, modality: str) -> list[int]:
            grid = out_mm_kwargs[modality][number][f"{modality}_grid_thw"].data
            return [tokens[modality]] * self.info.plan.count(units_of(grid.tolist(), merge))

        return [
            PromptReplacement(modality=modality, target=[token], replacement=partial(replacement, modality=modality))
            for modality, token in tokens.items()
        ]


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=Qwen2_5_VLDummyInputsBuilder)
class DuetQwen2_5_VLForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """The stock model; pictures and videos leave it with fewer tokens, which keep their positions."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        plan = read_plan(vllm_config.model_config.hf_config)
        settings = vllm_config.model_config.multimodal_config
        if settings.video_pruning_rate != ASKS_FOR_POSITIONS:  # a second model of this process finds our own rate
            check_settings(vllm_config)
        if plan.keeps_positions:
            settings.video_pruning_rate = ASKS_FOR_POSITIONS
            let_cpu_runner_ask()
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.plan = plan

    def embed_multimodal(self, **kwargs: object) -> Any:
        """The tokens of each picture and video, in the order of the arguments."""
        found: tuple[Tensor, ...] = ()
        for modality, given in self._parse_and_validate_multimodal_inputs(**kwargs).items():
            pixels = given["pixel_values" if modality == "image" else "pixel_values_videos"]
            grid_thw = given[f"{modality}_grid_thw"]
            found += self._tokens(modality, pixels, grid_thw, self._steps(given, len(grid_thw)))
        return found

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: Any) -> tuple[Tensor, int]:
        """`[3, N]` positions of a prompt, the survivors' still missing, and the step to those of new tokens."""
        count = len(input_tokens)
        if not self.plan.keeps_positions:
            return torch.arange(count).expand(positions.AXES, -1).clone(), 0
        ordered = sorted((feature.mm_position for feature in mm_features), key=lambda where: where.offset)
        grids = self.iter_mm_grid_thw(mm_features)
        media = [
            positions.Medium(offset, where.length, (int((times - 1) * step) + 1, height, width))
            for where, (offset, times, height, width, step) in zip(ordered, grids, strict=True)
        ]
        return positions.number_text(count, media)

    def recompute_mrope_positions(
        self,
        input_ids: Any,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[list[Tensor], Tensor, int]:
        """Features without digits, positions with the survivors' filled in, and the step to those of new tokens."""
        ids = torch.as_tensor(input_ids, device=mrope_positions.device)
        visual = (ids == self.config.image_token_id) | (ids == self.config.video_token_id)
        pairs = [positions.read(one) for one in multimodal_embeddings]
        found = positions.place(mrope_positions, visual, [where for _, where in pairs], num_computed_tokens)
        return [features for features, _ in pairs], found, int(found[:, -1].max()) + 1 - len(ids)

    def _steps(self, given: Any, count: int) -> list[float]:
        """Time positions from one temporal patch to the next, for each medium."""
        seconds = given.get("second_per_grid_ts") if given["type"] == "pixel_values_videos" else None
        if seconds is None:
            return [1.0] * count
        per_second = self.config.vision_config.tokens_per_second
        return [float(one) * per_second for one in torch.as_tensor(seconds).flatten().tolist()]

    def _tokens(self, modality: str, pixels: Tensor, grid_thw: Tensor, steps: list[float]) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        grids = grid_thw.tolist()
        sizes = [times * height * width for times, height, width in grids]
        first, start = 0, 0
        while first < len(grids):
            last, patches = first + 1, sizes[first]
            while last < len(grids) and patches + sizes[last] <= MOST_PATCHES:
                patches += sizes[last]
                last += 1
            found += self._some_tokens(
                modality, pixels[start : start + patches], grid_thw[first:last], steps[first:last]
            )
            first, start = last, start + patches
        return tuple(found)

    def _some_tokens(self, modality: str, pixels: Tensor, grid_thw: Tensor, steps: list[float]) -> list[Tensor]:
        merge = self.visual.spatial_merge_size
        grids = grid_thw.tolist()
        states = qwen.encode(QwenTower(self.visual), pixels, grid_thw.cpu(), self.plan.tower_needs())
        sizes = qwen.unit_sizes(grid_thw, merge)
        owner = [(medium, time) for medium, (times, _, _) in enumerate(grids) for time in range(times)]
        role = "frame" if modality == "video" else "picture"
        groups = list(qwen.by_size(sizes).values())
        units = [[Unit(0, owner[one][0], role, owner[one][1]) for one in members] for members in groups]
        reductions = reduce(self.plan, states, units, lambda features: features)
        rows: dict[int, tuple[Tensor, Tensor]] = {}
        for members, reduction in zip(groups, reductions, strict=True):
            for index, unit in enumerate(members):
                real = reduction.kept[index] != NONE
                kept, features = reduction.kept[index][real], reduction.features[index][real]
                order = kept.argsort(stable=True) if self.plan.keeps_positions else torch.arange(len(kept))
                rows[unit] = kept[order].cpu(), features[order.to(features.device)]
        return [self._medium(number, grids[number], step, owner, rows) for number, step in enumerate(steps)]

    def _medium(
        self,
        number: int,
        grid: list[int],
        step: float,
        owner: list[tuple[int, int]],
        rows: dict[int, tuple[Tensor, Tensor]],
    ) -> Tensor:
        """One picture or video, `[K, D]`, the features followed by their positions if those are kept."""
        merge = self.visual.spatial_merge_size
        width = grid[2] // merge
        features, places = [], []
        for unit, (medium, time) in enumerate(owner):
            if medium == number:
                kept, tokens = rows[unit]
                features.append(tokens)
                places.append(torch.stack([torch.full_like(kept, int(time * step)), kept // width, kept % width]))
        tokens = torch.cat(features)
        check_count(self.plan, len(tokens), self.plan.count(units_of(grid, merge)))
        return positions.write(tokens, torch.cat(places, dim=1)) if self.plan.keeps_positions else tokens
