"""Name of the paper's README; the code of Qwen2-VL and Qwen2.5-VL is `duet/qwen2_5_vl/`."""

from duet.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration, configure_duet

__all__ = ["Qwen2_5_VLForConditionalGeneration", "configure_duet"]
