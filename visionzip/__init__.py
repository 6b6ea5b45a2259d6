"""Stage 1: merge redundant visual tokens behind the vision encoder.

`zip_merge.py` is VisionZip's own rule, `duet_merge.py` DUET's local clusters; they differ in what may be merged. The
functions below are the entry points that the paper's README prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import nn

    Model = TypeVar("Model", bound=nn.Module)

__all__ = ["visionzip", "visionzip_video"]


def visionzip(model: Model, dominant: int = 191, contextual: int = 30, cluster_width: int = 4) -> Model:
    """Switch DUET on: stage 1 with these counts per picture, stage 2 by its default schedule.

    Stage 2 keeps half of the visual tokens behind half of the layers and none behind three quarters (paper Sec. 4.1:
    `{16: 0.5, 24: 0}` of 32). For stage 1 alone: `duet.attach(model, method="visionzip_c", budget=...)`.

    Args:
        model: a loaded LLaVA, e.g. from `llava.model.builder.load_pretrained_model`.
        dominant: patches kept as they are, the CLS token counted among them (paper: k1). LLaVA-NeXT: of each crop; the
            paper's Table 13 prints totals over 5 crops, (850, 175) are (170, 35) here.
        contextual: merged tokens (paper: k2).
        cluster_width: patches per merged token (paper: w).

    Returns:
        The same model; `duet.detach(model)` makes it stock again.
    """
    import duet

    budget = duet.Budget(dominant, contextual, cluster_width, layers=(0.5, 0.75), ratios=(0.5, 0.0))
    duet.attach(model, method="duet", budget=budget)
    return model


def visionzip_video(model: Model, dominant: int = 170, contextual: int = 35, cluster_width: int = 4) -> Model:
    """The same for Video-LLaVA: counts are per frame, and per picture; stage 2 ranks the frames of a video together.

    Args:
        model: e.g. from `videollava.model.builder.load_pretrained_model`.
        dominant: patches kept of each frame, the CLS token counted among them. The paper's Table 14 prints totals over
            8 frames: (1280, 256) are (160, 32) here.
        contextual: merged tokens of each frame.
        cluster_width: patches per merged token.
    """
    return visionzip(model, dominant, contextual, cluster_width)
