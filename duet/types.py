"""What travels between engine, methods and adapters: frozen dataclasses with shapes, no behaviour of any method.

Letters: `B` pictures or rows, `T` sequence, `N` visual tokens before and `K` after stage 1, `V` visual tokens of a row
that enter the language model, `H` heads, `D` width, `C` rows of an attention map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: `rows [B, C] -> [B, C, N]`: attention probabilities of the asked-for patches over all patches, averaged over heads.
AttentionRows = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True)
class VisionStates:
    """What a vision reducer sees of the encoder, one row per picture (crop, tile, frame), all of one size.

    Attributes:
        features: `[B, N, D]` patch features of the layer that the projector reads, without CLS.
        cls: `[B, D]` feature of the CLS token, None where the tower has none.
        keys: `[B, N, Dk]` key projections of the scoring layer, averaged over heads; None unless needed.
        scores: the score rows that the method asked for by name (`VisionReducer.needs`), each `[B, N]`:
            `cls_attention` (CLS row, sum over heads), `received_attention` (column sums, mean over heads).
        grid: `(t, h, w)` patches of one row.
        attention_rows: rows of the attention map on demand; None unless needed.
    """

    features: Tensor
    cls: Tensor | None = None
    keys: Tensor | None = None
    scores: dict[str, Tensor] = field(default_factory=dict)
    grid: tuple[int, int, int] | None = None
    attention_rows: AttentionRows | None = None


@dataclass(frozen=True)
class Reduction:
    """What is left of each picture after stage 1.

    Attributes:
        features: `[B, K, D]` in output order.
        kept: `[B, K]` long, the patch that represents each output token; -1 for the CLS token.
        assign: `[B, N]` long, the output slot that each patch went into; -1 for a patch that is gone.
        contextual: how many of the K, the last ones, are merged tokens.
    """

    features: Tensor
    kept: Tensor
    assign: Tensor
    contextual: int = 0

    def row(self, index: int) -> Reduction:
        """The reduction of one picture, batch dimension 1."""
        features, kept, assign = (part[index : index + 1].detach() for part in (self.features, self.kept, self.assign))
        return Reduction(features, kept, assign, self.contextual)


@dataclass(frozen=True)
class Layout:
    """Where the visual tokens of a padded batch are, in the columns of the prompt as the processor made it.

    Attributes:
        placeholder: `[B, T]` bool, columns that the processor reserved for pictures.
        filled: `[B, T]` bool, placeholders that hold a token; the others are dropped at boundary 0.
        visual: `[B, T]` bool, filled columns that stage 2 may drop: all but separators (LLaVA-NeXT's newlines).
        valid: `[B, T]` bool, False at padding.
        units: per row, `(group, index)` of each picture, crop or frame in prompt order: its row in the adapter's
            list of `VisionStates`.
    """

    placeholder: Tensor
    filled: Tensor
    visual: Tensor
    valid: Tensor
    units: list[list[tuple[int, int]]]


@dataclass(frozen=True)
class Filling:
    """Features and the columns of a prompt that they go into.

    Attributes:
        mask: `[B, T]` bool.
        features: `[F, D]` in row-major order of the mask.
        origin: `[F, 3]` long, `(group, index, token)` of each: its unit as in `Layout.units`, and which token of it, an
            index into `Reduction.kept` or, without stage 1, the patch (-1 for CLS). None for separators.
    """

    mask: Tensor
    features: Tensor
    origin: Tensor | None


@dataclass(frozen=True)
class Placement:
    """Projected features, the columns that they go into, and the columns of all of them together."""

    parts: list[Filling]
    layout: Layout


@dataclass(frozen=True)
class QueryRows:
    """Attention rows of some tokens of each row of a batch, padded to the same C.

    Attributes:
        probabilities: `[B, C, T]`, softmax in float32 over what a token may see, averaged over heads.
        index: `[B, C]` long, the token of each row.
        real: `[B, C]` bool, False at padding.
    """

    probabilities: Tensor
    index: Tensor
    real: Tensor


@dataclass(frozen=True)
class LayerView:
    """What a decoder pruner sees at a boundary: the sequence that is about to enter layer p.

    Attributes:
        visual: `[B, T]` bool, candidates.
        text: `[B, T]` bool, text tokens behind the last picture of the row that may vote: the prompt's, when labels
            are given, all turns.
        last: `[B, T]` bool, the last token of the prompt; when labels are given, the token before each answer.
        salient: `[B, T]` bool, the salient ones among `text`, with the row's last prompt token where no labels are
            given; None unless the guidance needs it.
        attention: `queries [B, T] bool -> QueryRows`: attention of the marked tokens under the weights of layer p.
    """

    visual: Tensor
    text: Tensor
    last: Tensor
    salient: Tensor | None
    attention: Callable[[Tensor], QueryRows]


@dataclass(frozen=True)
class StageTrace:
    """What one drop inside the language model kept.

    Attributes:
        boundary: number of layers that had run.
        kept: per row, ascending indices `[K_b]` into the `V_b` visual tokens that entered the language model.
        candidates: per row, the indices `[C_b]` of what could be dropped: all that were left, but for those that a
            `compounding` budget spares (`Budget.drops`).
        scores: per row, the score `[C_b]` of each candidate.
        voters: per row, the prompt columns of the text tokens that voted.
    """

    boundary: int
    kept: list[Tensor]
    candidates: list[Tensor]
    scores: list[Tensor]
    voters: list[Tensor]


@dataclass(frozen=True)
class Clip:
    """Frames sampled from a video.

    Attributes:
        frames: numpy `[T, H, W, 3]` uint8, RGB.
        indices: number of each of them in the video, ascending.
        total: frames of the video.
        fps: its frames per second.
    """

    frames: Any
    indices: tuple[int, ...]
    total: int
    fps: float

    @property
    def seconds(self) -> list[float]:
        """When each of the frames is shown."""
        return [index / self.fps for index in self.indices]


@dataclass(frozen=True)
class Region:
    """Where the patches of a unit (picture, crop, frame) lie in what was shown.

    Attributes:
        medium: number of the picture or video among those of the prompt, in order.
        box: left, top, right, bottom of the patches, in pixels of the original picture or frame; outside of it where
            it was padded.
        grid: rows and columns of patches.
        caption: what the unit is, in a few words; empty for a whole picture.
        frame: the frame of the `Clip` to show it on; None for a picture.
        padding: RGB in 0..1 of what lies outside of the picture.
    """

    medium: int
    box: tuple[float, float, float, float]
    grid: tuple[int, int]
    caption: str = ""
    frame: int | None = None
    padding: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def patches(self) -> int:
        """How many there are."""
        return self.grid[0] * self.grid[1]
