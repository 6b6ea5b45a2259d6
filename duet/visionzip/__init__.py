"""Stage 1: merge redundant visual tokens after the vision encoder.

`zip_merge.py` is VisionZip's rule, `duet_merge.py` DUET's local clusters; they differ in which patches may be merged.
The functions below are the entry points from the README of the paper's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import nn

    Model = TypeVar("Model", bound=nn.Module)

__all__ = ["visionzip", "visionzip_video"]


def visionzip(model: Model, dominant: int = 191, contextual: int = 30, cluster_width: int = 4) -> Model:
    """Attach DUET: stage 1 with these counts per picture, stage 2 with its default schedule.

    Stage 2 keeps half of the visual tokens after half of the layers and none after three quarters (paper Sec. 4.1:
    `{16: 0.5, 24: 0}` of 32). For stage 1 alone: `duet.attach(model, method="visionzip_c", budget=...)`.

    Args:
        model: a loaded LLaVA, e.g. from `duet.llava.model.builder.load_pretrained_model`.
        dominant: patches kept unchanged, including CLS (paper: k1). For LLaVA-NeXT, per crop: the totals over 5 crops
            in the paper's Table 13, (850, 175), are (170, 35) here.
        contextual: merged tokens (paper: k2).
        cluster_width: patches per merged token (paper: w).

    Returns:
        The same model; `duet.detach(model)` restores the stock model.
    """
    import duet

    budget = duet.Budget(dominant, contextual, cluster_width, layers=(0.5, 0.75), ratios=(0.5, 0.0))
    duet.attach(model, method="duet", budget=budget)
    return model


def visionzip_video(model: Model, dominant: int = 170, contextual: int = 35, cluster_width: int = 4) -> Model:
    """The same for Video-LLaVA: counts are per frame or picture; stage 2 ranks all frames of a video together.

    Args:
        model: e.g. from `duet.videollava.model.builder.load_pretrained_model`.
        dominant: patches kept per frame, including CLS. The totals over 8 frames in the paper's Table 14,
            (1280, 256), are (160, 32) here.
        contextual: merged tokens per frame.
        cluster_width: patches per merged token.
    """
    return visionzip(model, dominant, contextual, cluster_width)
