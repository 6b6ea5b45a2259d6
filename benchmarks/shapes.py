"""Shapes of models with random weights, as the real ones or narrower. `families.py` builds them, and their prompts.

Speed does not depend on the values of the weights, so none are loaded. The `-cpu` shapes are 8 times narrower, with the
same depth, number of visual tokens and feed-forward ratio, so the paper's schedules apply unchanged. The tower of
`llava15-cpu` does 5.6 % of the operations of the uncompressed prefill, that of the real shape 4.1 %.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stack:
    """Sizes of a tower or a decoder."""

    layers: int
    width: int
    mlp_width: int
    heads: int
    kv_heads: int


@dataclass(frozen=True)
class Shape:
    """A model.

    Attributes:
        family: a name of `benchmarks.families.FAMILIES`.
        tower, decoder: sizes.
        averages: default averages of visual tokens per decoder layer.
        vocabulary: tokens.
        full_layers: blocks of a windowed tower without windows (Qwen2.5-VL).
        deep: blocks whose features are added after the first decoder layers (Qwen3-VL).
    """

    family: str
    tower: Stack
    decoder: Stack
    averages: tuple[int, ...] = (192, 128, 64)
    vocabulary: int = 32064
    full_layers: tuple[int, ...] = ()
    deep: tuple[int, ...] = ()


_CLIP_L = Stack(24, 1024, 4096, 16, 16)
_VICUNA_7B = Stack(32, 4096, 11008, 32, 32)
_CLIP_NARROW = Stack(24, 128, 512, 2, 2)
_VICUNA_NARROW = Stack(32, 512, 1376, 4, 4)
_QWEN_FULL = (7, 15, 23, 31)
_QWEN_DEEP = (8, 16, 24)
#: Totals per prompt of the paper's Tables 13 to 15, those that PyramidDrop can reach, too.
_NEXT, _VIDEO, _QWEN = (640, 320, 192), (960, 480, 136), (640, 320, 160)

SHAPES = {
    "llava15-7b": Shape("llava15", _CLIP_L, _VICUNA_7B),
    "llava15-13b": Shape("llava15", _CLIP_L, Stack(40, 5120, 13824, 40, 40)),
    "llava15-cpu": Shape("llava15", _CLIP_NARROW, _VICUNA_NARROW),
    "llavanext-7b": Shape("llavanext", _CLIP_L, _VICUNA_7B, _NEXT),
    "llavanext-cpu": Shape("llavanext", _CLIP_NARROW, _VICUNA_NARROW, _NEXT),
    "videollava-7b": Shape("videollava", _CLIP_L, _VICUNA_7B, _VIDEO),
    "videollava-cpu": Shape("videollava", _CLIP_NARROW, _VICUNA_NARROW, _VIDEO),
    "qwen2_5_vl-7b": Shape(
        "qwen2_5_vl", Stack(32, 1280, 3420, 16, 16), Stack(28, 3584, 18944, 28, 4), _QWEN, 152064, _QWEN_FULL
    ),
    # seven heads share a key as in the real shape, but are half as wide
    "qwen2_5_vl-cpu": Shape(
        "qwen2_5_vl", Stack(32, 160, 428, 2, 2), Stack(28, 448, 2368, 7, 1), _QWEN, 32064, _QWEN_FULL
    ),
    "qwen3_vl-8b": Shape(
        "qwen3_vl", Stack(27, 1152, 4304, 16, 16), Stack(36, 4096, 12288, 32, 8), _QWEN, 151936, deep=_QWEN_DEEP
    ),
    "qwen3_vl-cpu": Shape(
        "qwen3_vl", Stack(27, 144, 538, 2, 2), Stack(36, 512, 1536, 4, 1), _QWEN, 32064, deep=_QWEN_DEEP
    ),
    # towers of the real width, for their memory, which does not depend on their depth; Qwen's has a block with windows
    # and one without
    "videollava-tower": Shape("videollava", Stack(3, 1024, 4096, 16, 16), Stack(4, 64, 128, 2, 2), _VIDEO, 256),
    "qwen2_5_vl-tower": Shape("qwen2_5_vl", Stack(2, 1280, 3420, 16, 16), Stack(4, 64, 128, 2, 1), _QWEN, 256, (1,)),
    "smoke": Shape("llava15", Stack(3, 16, 64, 1, 1), Stack(8, 32, 64, 2, 2), (160,), 128),
    "smoke-videollava": Shape("videollava", Stack(3, 16, 64, 1, 1), Stack(8, 32, 64, 2, 2), (960,), 128),
    "smoke-llavanext": Shape("llavanext", Stack(3, 16, 64, 1, 1), Stack(8, 32, 64, 2, 2), (960,), 128),
    "smoke-qwen3_vl": Shape("qwen3_vl", Stack(4, 32, 48, 2, 2), Stack(8, 32, 64, 2, 1), (160,), 128, deep=(0, 2, 3)),
    "smoke-qwen2_5_vl": Shape("qwen2_5_vl", Stack(4, 32, 48, 2, 2), Stack(8, 32, 64, 2, 1), (160,), 128, (1, 3)),
}
