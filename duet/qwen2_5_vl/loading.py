"""Load Qwen2.5-VL or Qwen2-VL: `load(path_or_id) -> (model, processor)`.

The model is stock with nothing attached. Every weight must come from the checkpoint; missing, unexpected or wrongly
shaped weights are an error that lists them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration

from duet.checkpoints.qwen import Kind, load_qwen
from duet.qwen2_5_vl.processing import Qwen2_5_VLProcessor, Qwen2VLProcessor

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from duet.checkpoints.options import LoadOptions

KINDS = {
    "qwen2_5_vl": Kind(Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor),
    "qwen2_vl": Kind(Qwen2VLForConditionalGeneration, Qwen2VLProcessor),
}


def load(path_or_id: str | Path, **options: Unpack[LoadOptions]) -> tuple[Any, Any]:
    """Model (in eval mode) and processor.

    Args:
        path_or_id: local folder (nothing is downloaded) or hub id.
        options: see `LoadOptions`.

    Raises:
        CheckpointError: another family, incomplete or damaged; the message gives details.
        UserError: unknown option.
    """
    return load_qwen(path_or_id, KINDS, options)
