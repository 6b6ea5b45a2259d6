"""Sizes of the backbones that budgets are computed for: tower, projector, decoder, visual tokens per picture.

A "picture" is one input of the tower: a picture, a crop of LLaVA-NeXT, a frame of Video-LLaVA.
`find_backbone("llava15")`, or `Backbone.from_config("path/to/config.json")` for any checkpoint of a known family.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from duet.errors import UserError, suggest

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Tower:
    """A vision transformer.

    Attributes:
        layers: layers that run with compression attached, up to the one that the projector reads.
        width: hidden size; mlp_width: size of the feed-forward block; heads: attention heads.
        patch_values: values in one patch (channels x height x width, x frames of a temporal patch).
        mlp_matmuls: 2, or 3 for a gated block.
        patches_per_token: patches per visual token (4 with a 2x2 merger).
        window: patches in an attention window, 0 for no windows; full_layers: layers with full attention.
        unread: layers after the one that the projector reads. The stock model runs them and discards the result.
    """

    layers: int
    width: int
    mlp_width: int
    heads: int
    patch_values: int = 3 * 14 * 14
    mlp_matmuls: int = 2
    patches_per_token: int = 1
    window: int = 0
    full_layers: int = 0
    unread: int = 0


@dataclass(frozen=True)
class Decoder:
    """A LLaMA-like language model: grouped-query attention, SwiGLU, no biases that matter."""

    layers: int
    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int


@dataclass(frozen=True)
class Backbone:
    """The facts about a vision-language model that a budget needs.

    Attributes:
        name: for messages.
        tower, decoder: sizes.
        projector: `(inputs, outputs)` of its linear layers, in order, including those of all DeepStack levels.
        patches: visual tokens of one picture that stage 1 chooses from, without CLS; None if it depends on the
            resolution: see `with_patches`.
        cls: whether the tower has a CLS token, which `dominant` counts.
        cls_enters: whether the stock model passes CLS to its language model.
        pictures: pictures, crops or frames in one prompt.
        projects_first: whether the projector runs before stage 1, hence on all tokens.
        capped: pictures vary in size, so counts are limited to the tokens that a picture has, see `Stage1`.
        sizes: visual tokens of each picture of the prompt if they differ; `patches` is then the largest.
        reads_late: it reads its picture up to the last layers, so no schedule of ours leaves it without one.
    """

    name: str
    tower: Tower
    projector: tuple[tuple[int, int], ...]
    decoder: Decoder
    patches: int | None
    cls: bool = True
    cls_enters: bool = False
    pictures: int = 1
    projects_first: bool = False
    capped: bool = False
    sizes: tuple[int, ...] = ()
    reads_late: bool = False

    @property
    def full(self) -> int:
        """Visual tokens of a prompt that enter the language model without compression."""
        return sum(self.units) + self.pictures * self.cls_enters

    @property
    def units(self) -> tuple[int, ...]:
        """Visual tokens of each picture of the prompt, without CLS.

        Raises:
            UserError: see `known_patches`.
        """
        return self.sizes or (self.known_patches,) * self.pictures

    @property
    def known_patches(self) -> int:
        """`patches`, if known.

        Raises:
            UserError: it depends on the picture and was not given.
        """
        if self.patches is None:
            raise UserError(
                f"the number of visual tokens of {self.name} depends on the picture's resolution: say how many "
                f"(find_backbone({self.name!r}).with_patches(1280); --tokens 1280 on the command line)"
            )
        return self.patches

    def with_patches(self, patches: int, pictures: int | None = None) -> Backbone:
        """The same model with `pictures` pictures of `patches` visual tokens each in a prompt."""
        count = self.pictures if pictures is None else pictures
        if patches < 1 or count < 1:
            raise UserError(f"a prompt of {count} picture(s) with {patches} visual tokens each has nothing to reduce")
        return replace(self, patches=patches, pictures=count, sizes=())

    def with_units(self, sizes: Sequence[int]) -> Backbone:
        """The same model with a prompt of pictures (crops, frames) that have these numbers of visual tokens."""
        same = self.with_patches(max(sizes, default=0), len(sizes))
        return same if len(set(sizes)) == 1 else replace(same, sizes=tuple(sizes), capped=True)

    @classmethod
    def from_config(cls, config: Any, *, pictures: int | None = None) -> Backbone:
        """Read the sizes of a checkpoint.

        Args:
            config: a transformers config object, its dictionary, or the path of a config.json (or its folder).
            pictures: pictures, crops or frames in one prompt; None: one picture, for LLaVA-NeXT with the most tiles
                it can have, for Video-LLaVA the eight frames of a video.

        Raises:
            UserError: no such file, an unknown family, or a missing field.
        """
        from duet.budget.readers import read_backbone

        model = read_backbone(config)
        return model if pictures is None else replace(model, pictures=pictures)


def find_backbone(name: str | Backbone) -> Backbone:
    """A backbone by name; a `Backbone` is returned unchanged.

    Raises:
        UserError: unknown name.
    """
    if isinstance(name, Backbone):
        return name
    if not isinstance(name, str):
        raise UserError(f"{name!r} is no backbone; give a name ({', '.join(BACKBONES)}) or Backbone.from_config(...)")
    if name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}; {suggest(name, BACKBONES)}")
    return BACKBONES[name]


_CLIP_L = Tower(layers=23, width=1024, mlp_width=4096, heads=16, unread=1)
_VICUNA_7B = Decoder(32, 4096, 11008, heads=32, kv_heads=32, head_dim=128, vocabulary=32000)
_VICUNA_13B = Decoder(40, 5120, 13824, heads=40, kv_heads=40, head_dim=128, vocabulary=32000)
_MLP_7B = ((1024, 4096), (4096, 4096))

#: By name. Token counts as in the paper's tables: 576, 5 x 576 without newline tokens, 8 frames of 256 + CLS.
#: `mini` is the model of `playground/mini`.
BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone("llava15", _CLIP_L, _MLP_7B, _VICUNA_7B, patches=576),
        Backbone("llava15_13b", _CLIP_L, ((1024, 5120), (5120, 5120)), _VICUNA_13B, patches=576),
        Backbone("llavanext", _CLIP_L, _MLP_7B, _VICUNA_7B, patches=576, pictures=5, capped=True),
        Backbone("videollava", _CLIP_L, _MLP_7B, _VICUNA_7B, patches=256, cls_enters=True, pictures=8),
        Backbone(
            "qwen2_5_vl",
            Tower(
                layers=32,
                width=1280,
                mlp_width=3420,
                heads=16,
                patch_values=3 * 2 * 14 * 14,
                mlp_matmuls=3,
                patches_per_token=4,
                window=64,
                full_layers=4,
            ),
            ((5120, 5120), (5120, 3584)),
            Decoder(28, 3584, 18944, heads=28, kv_heads=4, head_dim=128, vocabulary=152064),
            patches=None,
            cls=False,
            projects_first=True,
            capped=True,
            reads_late=True,
        ),
        Backbone(
            "qwen3_vl",
            Tower(27, 1152, 4304, heads=16, patch_values=3 * 2 * 16 * 16, patches_per_token=4),
            ((4608, 4608), (4608, 4096)) * 4,
            Decoder(36, 4096, 12288, heads=32, kv_heads=8, head_dim=128, vocabulary=151936),
            patches=None,
            cls=False,
            projects_first=True,
            capped=True,
            reads_late=True,
        ),
        Backbone(
            "mini",
            Tower(layers=4, width=96, mlp_width=384, heads=3, patch_values=3 * 8 * 8, unread=1),
            ((96, 128), (128, 128)),
            Decoder(8, 128, 208, heads=4, kv_heads=4, head_dim=32, vocabulary=822),
            patches=100,
        ),
    )
}
