"""Data passed between engine, methods and adapters: frozen dataclasses with shapes, without method behaviour.

Letters: `B` pictures or rows, `T` sequence, `N` visual tokens before and `K` after stage 1, `V` visual tokens of a row
that enter the language model, `H` heads, `D` width, `C` rows of an attention map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: `rows [B, C] -> [B, C, N]`: attention probabilities of the given patches over all patches, averaged over heads.
AttentionRows = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True)
class Unit:
    """The unit that budget counts apply to: a picture, a crop, or a frame (a temporal patch) of a video.

    Attributes:
        row: prompt row.
        medium: index of its picture or video in the call.
        role: `picture`, `whole` and `tile` (LLaVA-NeXT), or `frame`.
        order: index among the units of its medium.
        offset: for a tile, row and column of its first patch in the grid of all tiles.
    """

    row: int
    medium: int
    role: str = "picture"
    order: int = 0
    offset: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class VisionStates:
    """A vision reducer's input from the encoder: boundary 0. Rows are units, or media, depending on the method's scope.

    All rows have the same N. Anything not named in `VisionReducer.needs` is None or absent.

    Attributes:
        features: `[B, N, D]` patch features of the layer that the projector reads, without CLS.
        cls: `[B, D]` feature of the CLS token, None if the tower has none; for media, `[B, U, D]`, one per unit.
        grid: `(t, h, w)` patches of one row.
        keys: `[B, N, Dk]` key projections of the scoring layer, averaged over heads.
        scores: score rows by name, each `[B, N]`: `cls_attention` (CLS row, sum over heads), `received_attention`
            (column sums, mean over heads), both also with the suffixes `_shallow` (layer 5 of 24) and `_first`
            (layer 0), and `wide_cls_attention_last` (CLS row of the layer after the features, heads not split).
        attention_rows: rows of the attention map on demand.
        wide_keys_last: `[B, N, D]` keys of the layer after the features, heads not split.
        projected: `[B, N, P]` features in the language model's width.
        deep: further projected features `[B, N, P]`, the i-th to be added after decoder layer i (DeepStack). Methods
            do not read them; their edits are applied to them, too.
        text_tokens, text_valid: `[B, M, P]` embeddings of the question's words, `[B, M]` bool.
        clip_image_embeds: `[B, N, E]` patches in CLIP's joint space.
        clip_text_embeds, clip_text_valid: `[B, S, E]` windows of 77 tokens of the question in that space, `[B, S]`
            bool.
        role: role of the row: `picture`, `tiles` (unit 0 is the whole picture) or `video`.
        unit: `[N]` long, the unit of each patch in its medium; None if rows are units.
        unit_grids: rows and columns of each unit of the medium.
        unit_offsets: offsets of tiles (`Unit.offset`).
    """

    features: Tensor
    cls: Tensor | None = None
    grid: tuple[int, int, int] | None = None
    keys: Tensor | None = None
    scores: dict[str, Tensor] = field(default_factory=dict)
    attention_rows: AttentionRows | None = None
    wide_keys_last: Tensor | None = None
    projected: Tensor | None = None
    deep: tuple[Tensor, ...] = ()
    text_tokens: Tensor | None = None
    text_valid: Tensor | None = None
    clip_image_embeds: Tensor | None = None
    clip_text_embeds: Tensor | None = None
    clip_text_valid: Tensor | None = None
    role: str = "picture"
    unit: Tensor | None = None
    unit_grids: tuple[tuple[int, int], ...] = ()
    unit_offsets: tuple[tuple[int, int], ...] = ()


#: Fields of `VisionStates` with one entry per patch, `[B, N, ...]`.
PATCH_FIELDS = ("features", "keys", "wide_keys_last", "projected", "clip_image_embeds")
#: Fields of the question, `[B, M, ...]`.
TEXT_FIELDS = ("text_tokens", "text_valid", "clip_text_embeds", "clip_text_valid")


@dataclass(frozen=True)
class Reduction:
    """The tokens of each unit after stage 1: an applied edit.

    Attributes:
        features: `[B, K, D]` in output order, before the projector unless `projected`.
        kept: `[B, K]` long, the patch that each output token represents; -1 for CLS, -2 at padding.
        assign: `[B, N]` long, the output slot that each patch went into; -1 for a dropped patch.
        contextual: number of merged tokens, the last of the K.
        projected: the features already have the language model's width.
        ragged: some units keep fewer than K.
        deep: `VisionStates.deep` after the edit.
        sizes: `[B, K]`, the patches that each output token stands for, those of other units included.
    """

    features: Tensor
    kept: Tensor
    assign: Tensor
    contextual: int = 0
    projected: bool = False
    ragged: bool = False
    deep: tuple[Tensor, ...] = ()
    sizes: Tensor | None = None

    def row(self, index: int) -> Reduction:
        """The reduction of one unit, batch dimension 1, without padding."""
        features, kept, assign = (part[index : index + 1].detach() for part in (self.features, self.kept, self.assign))
        deep = tuple(level[index : index + 1].detach() for level in self.deep)
        if self.ragged:
            real = kept[0] > -2
            features, kept, deep = features[:, real], kept[:, real], tuple(level[:, real] for level in deep)
        return Reduction(features, kept, assign, self.contextual, self.projected, deep=deep)


@dataclass(frozen=True)
class Layout:
    """Columns of the visual tokens in a padded batch, counted in the processor's prompt.

    Attributes:
        placeholder: `[B, T]` bool, columns that the processor reserved for pictures.
        filled: `[B, T]` bool, placeholders that hold a token; the others are dropped at boundary 0.
        visual: `[B, T]` bool, filled columns that stage 2 may drop: all but separators (LLaVA-NeXT's newlines).
        valid: `[B, T]` bool, False at padding.
        units: for each row, `(group, index)` of each picture, crop or frame in prompt order: its row in the adapter's
            list of `VisionStates`.
        sizes: `[B, T]`, the patches that each column stands for (`duet.engine.proportional`); None for plain attention.
    """

    placeholder: Tensor
    filled: Tensor
    visual: Tensor
    valid: Tensor
    units: list[list[tuple[int, int]]]
    sizes: Tensor | None = None


@dataclass(frozen=True)
class Filling:
    """Features and the prompt columns that they fill.

    Attributes:
        mask: `[B, T]` bool.
        features: `[F, D]` in row-major order of the mask.
        origin: `[F, 3]` long, `(group, index, token)` of each: its unit as in `Layout.units`, and the index of the
            token in `Reduction.kept` or, without stage 1, the patch (-1 for CLS). None for separators.
        deep: further features `[F, P]` of the same tokens, each added after one more layer (DeepStack).
    """

    mask: Tensor
    features: Tensor
    origin: Tensor | None
    deep: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Projected features with the columns that they fill, and the layout of all of them together.

    Attributes:
        parts: the features of each kind.
        layout: their columns.
        entered: visual tokens of each row, if the host knows them without waiting for the device.
        separators: separators of each row, which are not visual tokens.
        kinds: of each kind, `[B, T]` bool, its placeholders, and how many of them are filled; empty if the host does
            not know.
    """

    parts: list[Filling]
    layout: Layout
    entered: list[int] | None = None
    separators: list[int] | None = None
    kinds: list[tuple[Tensor, int]] = field(default_factory=list)


@dataclass(frozen=True)
class QueryRows:
    """Attention rows of selected tokens of each batch row, padded to the same C.

    Attributes:
        probabilities: `[B, C, T]`, softmax in float32 over the tokens visible to each query, mean or maximum over
            heads; or `[B, H, C, T]`.
        index: `[B, C]` long, the query token of each attention row.
        real: `[B, C]` bool, False at padding.
    """

    probabilities: Tensor
    index: Tensor
    real: Tensor


@dataclass(frozen=True)
class LayerView:
    """A decoder pruner's view at a boundary: the remaining sequence `[B, T]`, in prompt order.

    In `score` it is the sequence that enters the ranking layer, in `edit` the one at the boundary itself.

    Attributes:
        visual: `[B, T]` bool, candidates.
        text: `[B, T]` bool, text tokens after the last picture of the row that may vote: the prompt's; with labels,
            those of all turns.
        last: `[B, T]` bool, the last token of the prompt; with labels, the token before each answer.
        salient: `[B, T]` bool, the salient tokens in `text`, and without labels also the row's last prompt token; None
            unless the guidance needs it.
        valid: `[B, T]` bool, False at padding.
        columns: `[B, T]` long, the prompt column of each token.
        hidden: `[B, T, D]` hidden states.
        layer: index of the ranking layer in `score`, of the layer about to run in `edit`.
        stage: index of the drop in the schedule, from 0.
        attention: `(queries [B, T] bool, heads="mean"|"max"|"all") -> QueryRows`: attention of the marked tokens with
            the weights of the ranking layer; in `score` only.
        keys: `() -> [B, Hkv, T, d]` keys of the ranking layer; in `score` only.
        normed: `() -> [B, T, D]` hidden states after the model's final norm.
        embeddings: `[B, T, D]` input embeddings of the language model; None unless needed.
        memory: the method's state, kept until the next boundary of the same prompt.
        rope: cos and sin `[B, T, d]` for the ranking layer's queries and keys; in `score` only.
        ahead: `(hidden [B, T, D], layers=1) -> [B, T, D]`: what the layers from the ranking one on make of such states;
            in `score` only. `duet.ops.saliency` differentiates it.
        sizes: `[B, T]`, the patches that each token stands for; 1 for text. None for plain attention.
    """

    visual: Tensor
    text: Tensor
    last: Tensor
    salient: Tensor | None
    valid: Tensor
    columns: Tensor
    hidden: Tensor
    layer: int
    stage: int
    attention: Callable[..., QueryRows]
    keys: Callable[[], Tensor]
    normed: Callable[[], Tensor]
    embeddings: Tensor | None
    memory: dict[str, Tensor]
    rope: tuple[Tensor, Tensor] | None = None
    ahead: Callable[..., Tensor] | None = None
    sizes: Tensor | None = None


@dataclass(frozen=True)
class StageTrace:
    """Record of one drop inside the language model.

    Attributes:
        boundary: number of layers that had run.
        kept: per row, ascending indices `[K_b]` into the `V_b` visual tokens that entered the language model.
        candidates: per row, the indices `[C_b]` of the tokens that could be dropped: all remaining ones, except those
            that a `compounding` budget spares (`Budget.drops`).
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
        indices: frame number of each in the video, ascending.
        total: number of frames in the video.
        fps: its frames per second.
    """

    frames: Any
    indices: tuple[int, ...]
    total: int
    fps: float

    @property
    def seconds(self) -> list[float]:
        """Time of each frame."""
        return [index / self.fps for index in self.indices]


@dataclass(frozen=True)
class Region:
    """The area of a picture or frame that the patches of a unit (picture, crop, frame) cover.

    Attributes:
        medium: index of the picture or video in the prompt.
        box: left, top, right, bottom of the patches, in pixels of the original picture or frame; beyond its edges if it
            was padded.
        grid: rows and columns of patches.
        caption: short description of the unit; empty for a whole picture.
        frame: the frame of the `Clip` to show it on; None for a picture.
        padding: RGB in 0..1 of the padding around the picture.
    """

    medium: int
    box: tuple[float, float, float, float]
    grid: tuple[int, int]
    caption: str = ""
    frame: int | None = None
    padding: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def patches(self) -> int:
        """Number of patches."""
        return self.grid[0] * self.grid[1]
