"""The protocols that methods and families fulfil. No code: see `STRUCTURE.md` for who calls whom.

A method is a pair: a vision reducer (encoder output -> fewer visual tokens) and a decoder pruner (score the visual
tokens at a layer boundary). Which tokens survive is the method's business; how many, and where, is the budget's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from duet.budget import Stage1
    from duet.edit import Edit
    from duet.types import LayerView, Placement, Reduction, Region, Unit, VisionStates


class VisionReducer(Protocol):
    """Stage 1: boundary 0. Rows of what it sees are units (pictures, crops, frames), or whole media."""

    @property
    def needs(self) -> frozenset[str]:
        """Names of what the engine has to hand over in `VisionStates`, beside `features`, `cls` and `grid`."""
        ...

    @property
    def scope(self) -> str:
        """`unit`: every unit is reduced on its own. `medium`: all units of a picture or video arrive as one row."""
        ...

    @property
    def contextual(self) -> bool:
        """Whether it makes merged tokens of the budget's second count beside those that it keeps."""
        ...

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Say which tokens of every row stay, and which flow into them."""
        ...


class DecoderPruner(Protocol):
    """Stage 2: boundaries inside the language model. Scores visual tokens; the engine keeps the best of each row.

    A pruner may have `edit(view, scores [B, T], counts [B]) -> Edit` beside `score`, for quotas, thresholds and
    merging: `kept` and `source` are indices into the sequence, candidates only. An output with share 0 is a new token;
    it stands after the last visual token that is kept. It may also have `check(backbone)`, called when it is attached.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Any of `salient` and `embeddings`."""
        ...

    @property
    def layer(self) -> str:
        """Whose queries and keys rank at a boundary: the `next` layer's, or those of the `previous` one."""
        ...

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """Rank the visual tokens. Runs inside the forward of the ranking layer.

        Returns:
            scores `[B, T]`, higher = keep, read at visual columns only; and voters `[B, T]` bool, the text tokens
            whose attention went into them.
        """
        ...


class TextModel(Protocol):
    """What the decoder loop uses of a stock text model (`LlamaModel`, `MistralModel`, `Qwen2Model`, ...)."""

    config: Any
    training: bool
    embed_tokens: Any
    layers: Any
    norm: Any
    rotary_emb: Any


class VisionSide(Protocol):
    """The half of a backbone in front of the language model: tower, projector, and where their tokens go.

    Attributes:
        provides: needs of vision reducers that the tower can meet.
        scores: stage-1 scores among them (`cls_row`, `column_mean`), the released one first.
        capped: pictures have any size, so a budget's counts are cut to what a picture has, instead of an error.
        pixel_names: arguments of the body's forward that hold pictures.
        switches: choices of each switch that this family has of its own; arguments of its constructor.
    """

    provides: frozenset[str]
    scores: tuple[str, ...]
    capped: bool
    pixel_names: tuple[str, ...]
    switches: dict[str, tuple[str, ...]]

    def body(self, model: Any) -> Any:
        """The module without head whose forward takes `input_ids` and pictures.

        Raises:
            UserError: its tower is not the one that was checked.
        """
        ...

    def encode(self, body: Any, inputs: dict[str, Any], needs: frozenset[str]) -> list[VisionStates]:
        """Run the tower up to the feature layer; one `VisionStates` per group of equally large units."""
        ...

    def units(self, body: Any, inputs: dict[str, Any], states: list[VisionStates]) -> list[list[Unit]]:
        """What each row of each group is."""
        ...

    def project(self, body: Any, features: Tensor) -> Tensor:
        """`[B, N, D]` features of the tower in the language model's width, `[B, N, P]`."""
        ...

    def placeholders(self, body: Any, input_ids: Tensor) -> Tensor:
        """`[B, T]` bool, columns that the processor reserved for pictures."""
        ...

    def place(
        self,
        body: Any,
        inputs: dict[str, Any],
        states: list[VisionStates],
        reductions: list[Reduction] | None,
        in_place: bool,
    ) -> Placement:
        """Project the (reduced) features and say which placeholders they fill.

        Args:
            body: the module without head.
            inputs: arguments of its forward.
            states: what `encode` returned.
            reductions: one per group; None where stage 1 is off.
            in_place: fill the slots of the kept patches, not the first ones of each unit.

        Raises:
            ValueError: the prompt's placeholders do not fit the pictures.
        """
        ...

    def rows_of_pixels(self, body: Any, inputs: dict[str, Any]) -> dict[str, list[int]]:
        """For each argument about pictures that `generate` has to repeat with its prompt row: entries of each row.

        Args:
            body: the module without head.
            inputs: `input_ids` and the other arguments of the prompt.
        """
        ...


class DecoderSide(Protocol):
    """The language model's half of a backbone.

    Attributes:
        text_models: class names of the text models whose layers were checked.
    """

    text_models: tuple[str, ...]

    def text_model(self, model: Any) -> Any:
        """The decoder stack, a `TextModel`."""
        ...

    def position_ids(self, body: Any, inputs: dict[str, Any]) -> Tensor | None:
        """Position ids of the whole prompt where the caller gave none; None for 0, 1, 2, ..."""
        ...

    def rope(self, lm: Any, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary tables that the decoder layers take."""
        ...

    def ranking(self, layer: Any, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> RankingProjection:
        """Queries and keys of a decoder layer, not yet computed, for the tokens that enter it."""
        ...


class RankingProjection(Protocol):
    """Lazy q and k of one decoder layer over `hidden [B, T, D]`."""

    scale: float

    def keys(self) -> Tensor:
        """`[B, Hkv, T, d]`, after RoPE."""
        ...

    def queries(self, index: Tensor) -> Tensor:
        """`[B, H, C, d]` of the token positions `index [B, C]`, after RoPE."""
        ...


class Asking(Protocol):
    """How a family is asked a question, and where the patches of its visual tokens lie in what it was shown.

    Made of a model's config and its processor. Media are PIL pictures and `duet.types.Clip`s; their kinds are the
    placeholders of `duet.text.placeholders`.
    """

    takes_videos: bool

    def __init__(self, config: Any, processor: Any) -> None: ...

    def conversation(self, original: str | None = None) -> str:
        """Name of the prompt format; `original` is the one that a benchmark's own evaluation uses."""
        ...

    def prompt(self, question: str, kinds: Sequence[str], original: str | None = None) -> str:
        """The text that the processor takes.

        Args:
            question: with a placeholder for each picture and video, or without any.
            kinds: of the pictures and videos, in order.
            original: as for `conversation`.

        Raises:
            UserError: the placeholders do not fit.
        """
        ...

    def frames(self, seconds: float) -> int:
        """How many frames of a video of this length are looked at where nobody says."""
        ...

    def encode(self, text: str, media: Sequence[Any]) -> Mapping[str, Tensor]:
        """What the model takes: processor output of one prompt."""
        ...

    def regions(self, inputs: Mapping[str, Tensor], media: Sequence[Any]) -> list[Region]:
        """Of each unit (picture, crop, frame) in prompt order, as `Layout.units` and `Trace.reductions` count them."""
        ...
