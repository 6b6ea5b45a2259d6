"""What the original training code makes of conversation rows, id for id, where ours is different on purpose.

The rules are those of haotian-liu/LLaVA c121f04 (`llava/train/train.py`), PKU-YuanGroup/Video-LLaVA 984e65b and
AMD-AGI/DUET-VLM cd69e48 (`videollava/train`), and QwenLM/Qwen3-VL 2f25a64 (`qwen-vl-finetune`).
"""

from __future__ import annotations

#: Family -> whose training code its tokenization is.
FAMILY_CODES = {"llava": "llava", "llava_next": "llava", "video_llava": "duet_video"}


def code_of(model_type: str) -> str:
    """`llava`, `duet_video` or `qwen`: the code that a family's checkpoints are trained with."""
    return FAMILY_CODES.get(model_type, "qwen")
