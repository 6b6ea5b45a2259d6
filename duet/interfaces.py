"""The protocols of methods and families, without code. `STRUCTURE.md` shows who calls whom.

A method is a pair: a vision reducer (encoder output -> fewer visual tokens) and a decoder pruner (score the visual
tokens at a layer boundary). The method chooses which tokens survive; the budget says how many, and at which layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from duet.budget import Stage1
    from duet.edit import Edit
    from duet.text.segments import Segment
    from duet.types import LayerView, Placement, Reduction, Region, Unit, VisionStates


class VisionReducer(Protocol):
    """Stage 1: boundary 0. Its input rows are units (pictures, crops, frames), or whole media.

    With `compiles = True` it is compiled with the model (`duet.compile`): it has scope `unit`, makes as many tokens as
    the budget says, reads no value back to the host, and has no loop over tokens.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Names of what it needs in `VisionStates` besides `features`, `cls` and `grid`."""
        ...

    @property
    def scope(self) -> str:
        """`unit`: every unit is reduced on its own. `medium`: all units of a picture or video form one row."""
        ...

    @property
    def contextual(self) -> bool:
        """Whether it makes merged tokens, the budget's second count, besides those that it keeps."""
        ...

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Choose the tokens of every row that stay, and those merged into them."""
        ...


class DecoderPruner(Protocol):
    """Stage 2: boundaries inside the language model. Scores visual tokens; the engine keeps the best of each row.

    Besides `score`, a pruner may have `edit(view, scores [B, T], counts [B]) -> Edit`, for quotas, thresholds and
    merging: `kept` and `source` are indices into the sequence, candidates only. An output with share 0 is a new token,
    placed after the last kept visual token.

    With `compiles = True` it can be compiled (`duet.compile`): its scores read no value back to the host.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Any of `salient` and `embeddings`."""
        ...

    @property
    def layer(self) -> str:
        """The layer whose queries and keys rank the tokens at a boundary: `next` or `previous`."""
        ...

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """Rank the visual tokens. Runs inside the forward of the ranking layer.

        Returns:
            scores `[B, T]`, higher = keep, read at visual columns only; and voters `[B, T]` bool, the text tokens
            whose attention was used.
        """
        ...


class TextModel(Protocol):
    """The parts of a stock text model (`LlamaModel`, `MistralModel`, `Qwen2Model`, ...) that the decoder loop uses."""

    config: Any
    training: bool
    embed_tokens: Any
    layers: Any
    norm: Any
    rotary_emb: Any


class VisionSide(Protocol):
    """The part of a backbone before the language model: tower, projector, and the placement of their tokens.

    Attributes:
        provides: needs of vision reducers that the tower can meet.
        scores: stage-1 scores among them (`cls_row`, `column_mean`), the released one first.
        capped: pictures vary in size, so a budget's counts are limited to the tokens of a picture instead of raising.
        pixel_names: arguments of the body's forward that hold pictures.
        switches: the family's own switches and their choices; arguments of its constructor.
    """

    provides: frozenset[str]
    scores: tuple[str, ...]
    capped: bool
    pixel_names: tuple[str, ...]
    switches: dict[str, tuple[str, ...]]

    def body(self, model: Any) -> Any:
        """The module without the head, whose forward takes `input_ids` and pictures.

        Raises:
            UserError: its tower is not a supported one.
        """
        ...

    def encode(self, body: Any, inputs: dict[str, Any], needs: frozenset[str]) -> list[VisionStates]:
        """Run the tower up to the feature layer; one `VisionStates` per group of equally large units."""
        ...

    def units(self, body: Any, inputs: dict[str, Any], states: list[VisionStates]) -> list[list[Unit]]:
        """The unit of each row of each group."""
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
        """Project the (reduced) features and choose the placeholders that they fill.

        Args:
            body: the module without the head.
            inputs: arguments of its forward.
            states: the result of `encode`.
            reductions: one per group; None without stage 1.
            in_place: fill the slots of the kept patches, not the first slots of each unit.

        Raises:
            ValueError: the prompt's placeholders do not match the pictures.
        """
        ...

    def rows_of_pixels(self, body: Any, inputs: dict[str, Any]) -> dict[str, list[int]]:
        """Entries per prompt row of each picture argument that `generate` must repeat together with the row.

        Args:
            body: the module without the head.
            inputs: `input_ids` and the other arguments of the prompt.
        """
        ...


class DecoderSide(Protocol):
    """The language model's part of a backbone.

    Attributes:
        text_models: class names of the supported text models, whose layers were checked.
    """

    text_models: tuple[str, ...]

    def text_model(self, model: Any) -> Any:
        """The decoder stack, a `TextModel`."""
        ...

    def position_ids(self, body: Any, inputs: dict[str, Any]) -> Tensor | None:
        """Position ids of the whole prompt if the caller gave none; None for 0, 1, 2, ..."""
        ...

    def rope(self, lm: Any, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary tables for the decoder layers."""
        ...

    def attention(self, layer: Any) -> Any:
        """The attention module of a decoder layer, whose forward takes `past_key_values`."""
        ...

    def ranking(self, layer: Any, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> RankingProjection:
        """Lazy queries, keys and values of a decoder layer, for the tokens that enter it."""
        ...


class RankingProjection(Protocol):
    """Lazy q, k and v of one decoder layer over `hidden [B, T, D]`."""

    scale: float

    def keys(self) -> Tensor:
        """`[B, Hkv, T, d]`, after RoPE."""
        ...

    def values(self) -> Tensor:
        """`[B, Hkv, T, d]`."""
        ...

    def queries(self, index: Tensor) -> Tensor:
        """`[B, H, C, d]` of the token positions `index [B, C]`, after RoPE."""
        ...


class Asking(Protocol):
    """A family's prompts, and the regions of its visual tokens in pictures and frames.

    Built from a model's config and its processor. Media are PIL pictures and `duet.types.Clip`s; their kinds are the
    placeholders of `duet.text.placeholders`. It writes the questions of `duet ask`, of benchmarks and of training
    rows.

    Attributes:
        takes_videos: whether it takes videos beside pictures.
        marks: what a text for the processor holds in place of each kind.
        between: text after a placeholder that is put in front of a question.
    """

    takes_videos: bool
    marks: Mapping[str, str]
    between: str
    config: Any
    processor: Any

    def __init__(self, config: Any, processor: Any) -> None: ...

    def conversation(self, original: str | None = None) -> str:
        """Name of the prompt format; `original` is the format of a benchmark's own evaluation."""
        ...

    def prompt(self, question: str, kinds: Sequence[str], original: str | None = None) -> str:
        """The text for the processor.

        Args:
            question: with a placeholder for each picture and video, or with none.
            kinds: kinds of the pictures and videos, in order.
            original: as for `conversation`.

        Raises:
            UserError: the placeholders do not match.
        """
        ...

    def text(
        self, turns: Sequence[tuple[str, str | None]], system: str | None = None, version: str | None = None
    ) -> str:
        """The text for the processor of a conversation with an open question, whose answer is None, at its end.

        Arguments and errors as of `segments`; placeholders stand in the questions.
        """
        ...

    def segments(
        self, turns: Sequence[tuple[str, str | None]], system: str | None = None, version: str | None = None
    ) -> list[Segment]:
        """A conversation in pieces for the processor, `marks` in place of placeholders, its answers marked as learned.

        Args:
            turns: (question, answer) pairs; the last answer may be None, then the text ends where it begins.
            system: a system message in place of the format's own.
            version: name of the prompt format; None: `conversation()`.

        Raises:
            UserError: an unknown format, or one without a place for a system message.
        """
        ...

    def frames(self, seconds: float) -> int:
        """Default number of frames for a video of this length."""
        ...

    def encode(self, text: str, media: Sequence[Any]) -> Mapping[str, Tensor]:
        """Processor output of one prompt, ready for the model."""
        ...

    def regions(self, inputs: Mapping[str, Tensor], media: Sequence[Any]) -> list[Region]:
        """Regions of all units in prompt order, as in `Layout.units` and `Trace.reductions`."""
        ...
