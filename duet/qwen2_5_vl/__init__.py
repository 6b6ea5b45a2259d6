"""Qwen2.5-VL and Qwen2-VL: checkpoints, processor, and the entry point from the README of the paper's code.

from duet.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

model = Qwen2_5_VLForConditionalGeneration.from_pretrained("Qwen/Qwen2.5-VL-7B-Instruct")
model.configure_duet(dominant_tokens=170, contextual_tokens=35, layer_list=[14, 21], ratio_list=[0.5, 0.25])

`AutoProcessor`, used in that README, needs torchvision; without it: `model, processor = duet.load("Qwen/...")`.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Qwen2_5_VLForConditionalGeneration", "configure_duet"]


class Qwen2_5_VLForConditionalGeneration:
    """Not a model class: `from_pretrained` returns transformers' stock model with a method `configure_duet`.

    A subclass would be "custom code" to transformers, whose checkpoint conversion would then skip text weights.
    """

    @staticmethod
    def from_pretrained(path_or_id: str, *args: Any, **kwargs: Any) -> Any:
        """`transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained`; the model saves as a stock model."""
        from transformers import Qwen2_5_VLForConditionalGeneration as Stock

        model = Stock.from_pretrained(path_or_id, *args, **kwargs)
        model.configure_duet = MethodType(configure_duet, model)  # type: ignore[assignment]
        return model


def configure_duet(
    model: Any,
    visionzip_enabled: bool = True,
    dominant_tokens: int | None = None,
    contextual_tokens: int | None = None,
    dominant_ratio: float = 0.65,
    contextual_ratio: float = 0.05,
    use_ori_visionzip: bool = False,
    pdrop_enabled: bool = True,
    layer_list: Sequence[int | float] = (0.5, 0.75),
    ratio_list: Sequence[float] | None = None,
    image_token_ratio_list: Sequence[float] | None = None,
    ratio_base: str = "entered",
) -> Any:
    """Attach DUET, or one stage of it, to a Qwen2.5-VL, replacing what was attached before.

    Args:
        model: loaded Qwen2.5-VL or Qwen2-VL.
        visionzip_enabled: stage 1.
        dominant_tokens, contextual_tokens: counts per picture, limited to its tokens; None uses the shares below.
        dominant_ratio, contextual_ratio: shares of the picture's visual tokens (the released code's defaults).
        use_ori_visionzip: merge as VisionZip does, without local clusters.
        pdrop_enabled: stage 2.
        layer_list: stage 2 acts after this many layers, as counts or shares of the depth.
        ratio_list: share of the visual tokens that entered the language model left after each of them; default
            0.5, 0.25.
        image_token_ratio_list: the released code's name for `ratio_list`.
        ratio_base: `compounding` is the released code's rule, see `Budget.drops`.

    Returns:
        The model.

    Raises:
        UserError: both names of the ratios are given, or a number is out of range.
    """
    import duet
    from duet.errors import UserError

    if ratio_list is not None and image_token_ratio_list is not None:
        raise UserError("ratio_list and image_token_ratio_list are two names for the same list; give one of them")
    ratios = ratio_list if ratio_list is not None else image_token_ratio_list
    stage1: dict[str, Any] = {}
    if visionzip_enabled:
        stage1["dominant"] = dominant_ratio if dominant_tokens is None else dominant_tokens
        stage1["contextual"] = contextual_ratio if contextual_tokens is None else contextual_tokens
    stage2: dict[str, Any] = {}
    if pdrop_enabled:
        stage2 = {"layers": tuple(layer_list), "ratios": tuple(ratios if ratios is not None else (0.5, 0.25))}
    method = {
        (True, True): "duet",
        (True, False): "visionzip_c",
        (False, True): "pyramiddrop_all",
        (False, False): "none",
    }[bool(visionzip_enabled), bool(pdrop_enabled)]
    switches: dict[str, Any] = {}
    if visionzip_enabled and use_ori_visionzip:
        switches["contextual_merge"] = "visionzip"
    if pdrop_enabled:
        switches["ratio_base"] = ratio_base
    return duet.attach(model, method=method, budget=duet.Budget(**stage1, **stage2), **switches)
