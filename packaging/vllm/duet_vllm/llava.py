"""LLaVA-1.5 in vLLM with stage 1 between its tower and its projector."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm.model_executor.models.clip import CLIPVisionModel
from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.model_executor.models.utils import get_layer_index, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY

from duet.backbones import clip
from duet.errors import UserError
from duet.types import Unit
from duet_vllm.checks import check_settings
from duet_vllm.plan import Plan, read_plan
from duet_vllm.reduce import check_count, reduce
from duet_vllm.towers import ClipTower

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor


def check_tower(config: Any) -> None:
    """Refuse towers other than CLIP, and several feature layers.

    Raises:
        UserError: names what was found.
    """
    tower, layer = config.vision_config.model_type, config.vision_feature_layer
    if tower != "clip_vision_model":
        raise UserError(f"the vision tower is {tower}; stage 1 needs clip_vision_model")
    if not isinstance(layer, int):
        raise UserError(f"vision_feature_layer {layer}: stage 1 reads one feature layer, not several")


def feature_layer(config: Any) -> int:
    """Number of tower layers up to the features."""
    return get_layer_index(config.vision_feature_layer, config.vision_config.num_hidden_layers)


def deepen_tower(model: Any, plan: Plan, vllm_config: Any, prefix: str) -> None:
    """Give the tower one more layer if the method reads the layer after the features (PruMerge)."""
    if not plan.reducer.needs & clip.WIDE:
        return
    layers = feature_layer(model.config)
    if layers == model.config.vision_config.num_hidden_layers:
        raise UserError(f"method {plan.method} reads the tower layer after the features; there is none")
    with model._mark_tower_model(vllm_config, "image"):
        model.vision_tower = CLIPVisionModel(
            model.config.vision_config,
            quant_config=vllm_config.quant_config,
            num_hidden_layers_override=layers + 1,
            require_post_norm=False,
            prefix=maybe_prefix(prefix, "vision_tower"),
        )


def older_names(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Names of the tower's weights as vLLM knows them: transformers 5 saves them one level higher."""
    for name, weight in weights:
        head, tower, rest = name.partition("vision_tower.")
        higher = head in ("", "model.") and tower and not rest.startswith("vision_model.")
        yield (f"{head}{tower}vision_model.{rest}" if higher else name), weight


def patches_per_picture(config: Any) -> int:
    """Patches of one tower input, without CLS."""
    return (config.vision_config.image_size // config.vision_config.patch_size) ** 2


class Info(LlavaProcessingInfo):
    """Counts the placeholders that stage 1 leaves."""

    @cached_property
    def plan(self) -> Plan:
        """Read once per process."""
        check_tower(self.get_hf_config())
        return read_plan(self.get_hf_config())

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        """The same for every picture."""
        return self.plan.count([patches_per_picture(self.get_hf_config())])


@MULTIMODAL_REGISTRY.register_processor(LlavaMultiModalProcessor, info=Info, dummy_inputs=LlavaDummyInputsBuilder)
class DuetLlavaForConditionalGeneration(LlavaForConditionalGeneration):
    """The stock model; pictures leave it with fewer tokens."""

    supports_encoder_tp_data = True  # every rank runs the whole tower

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        check_settings(vllm_config)
        check_tower(vllm_config.model_config.hf_config)
        plan = read_plan(vllm_config.model_config.hf_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.plan = plan
        deepen_tower(self, plan, vllm_config, prefix)

    def _process_image_input(self, image_input: Any) -> Tensor:
        """`[P, K, D]`, the tokens of P pictures in the language model's width."""
        pixels = image_input["pixel_values"]
        tower = ClipTower(self.vision_tower.vision_model)
        states = clip.encode_in_chunks(tower, pixels, feature_layer(self.config), self.plan.tower_needs())
        units = [Unit(number, number) for number in range(len(pixels))]
        (reduction,) = reduce(self.plan, [states], [units], self.multi_modal_projector)
        expected = self.plan.count([patches_per_picture(self.config)])
        check_count(self.plan, int((reduction.kept > -2).sum()), expected * len(pixels))
        check_count(self.plan, reduction.features.shape[1], expected)
        return reduction.features if reduction.projected else self.multi_modal_projector(reduction.features)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """With the names of old and new checkpoints."""
        return super().load_weights(older_names(weights))
