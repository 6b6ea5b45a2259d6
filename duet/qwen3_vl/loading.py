"""Load a dense Qwen3-VL: `load(path_or_id) -> (model, processor)`.

The model is stock with nothing attached. Every weight must come from the checkpoint; missing, unexpected or wrongly
shaped weights are an error that lists them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Qwen3VLForConditionalGeneration

from duet.checkpoints.qwen import Kind, load_qwen
from duet.qwen3_vl.processing import Qwen3VLProcessor, Qwen3VLVideoProcessor

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from duet.checkpoints.options import LoadOptions

KINDS = {"qwen3_vl": Kind(Qwen3VLForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor)}


def load(path_or_id: str | Path, **options: Unpack[LoadOptions]) -> tuple[Any, Any]:
    """Model (in eval mode) and processor.

    Args:
        path_or_id: local folder (nothing is downloaded) or hub id.
        options: see `LoadOptions`.

    Raises:
        CheckpointError: another family (also mixtures of experts), incomplete or damaged; the message gives details.
        UserError: unknown option.
    """
    return load_qwen(path_or_id, KINDS, options)
