"""Load Qwen2.5-VL or Qwen2-VL: `load(path_or_id) -> (model, processor)`.

The model is stock with nothing attached. Every weight has to come from the checkpoint; a missing, unexpected or wrongly
shaped one is an error that lists it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

from duet.checkpoints.assemble import Parts, assemble
from duet.checkpoints.files import CheckpointError, read_tensors, resolve_folder, weight_files
from duet.checkpoints.options import LoadOptions, check_options
from duet.checkpoints.sanity import read_config, read_generation
from duet.files import blame
from qwen2_5_vl.processing import read_processor

if TYPE_CHECKING:
    from typing_extensions import Unpack

ARCHITECTURES = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen2_vl": Qwen2VLForConditionalGeneration}


def load(path_or_id: str | Path, **options: Unpack[LoadOptions]) -> tuple[Any, Any]:
    """Model (in eval mode) and processor.

    Args:
        path_or_id: local folder (nothing is downloaded) or hub id.
        options: see `LoadOptions`.

    Raises:
        CheckpointError: another family, incomplete or damaged; the message lists what.
        UserError: unknown option.
    """
    check_options(options, LoadOptions)
    folder = resolve_folder(path_or_id, revision=options.get("revision"))
    family = read_config(folder).get("model_type")
    if family not in ARCHITECTURES:
        raise CheckpointError(f"{folder} holds a model of type {family!r}; supported are {', '.join(ARCHITECTURES)}")
    settings = read_config(folder, "vision_config")
    if "text_config" not in settings and "hidden_size" not in settings:  # the hub's files have its entries at the top
        raise CheckpointError(f"{folder / 'config.json'} does not say how large the language model is (hidden_size)")
    with blame(folder / "config.json", CheckpointError):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    parts = Parts(
        ARCHITECTURES[family],
        config,
        read_tensors(weight_files(folder)),
        read_processor(folder, family),
        read_generation(folder),
    )
    return assemble(parts, folder, options), parts.processor
