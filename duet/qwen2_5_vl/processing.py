"""Processors of Qwen2.5-VL and Qwen2-VL without torchvision, see `duet/checkpoints/qwen.py`."""

from __future__ import annotations

from transformers.models.qwen2_5_vl import processing_qwen2_5_vl
from transformers.models.qwen2_vl import processing_qwen2_vl

from duet.checkpoints.qwen import GivenParts


class Qwen2_5_VLProcessor(GivenParts, processing_qwen2_5_vl.Qwen2_5_VLProcessor):
    """The stock processor with our parts."""


class Qwen2VLProcessor(GivenParts, processing_qwen2_vl.Qwen2VLProcessor):
    """The stock processor with our parts."""
