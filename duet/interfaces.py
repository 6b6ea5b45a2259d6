"""The three protocols that methods and adapters fulfil. No code: see `STRUCTURE.md` for who calls whom.

A method is a pair: a vision reducer (encoder output -> fewer visual tokens) and a decoder pruner (score the visual
tokens at a layer boundary). Which tokens survive is the method's business; how many, and where, is the budget's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import LayerView, Layout, Reduction, VisionStates


class VisionReducer(Protocol):
    """Stage 1. `needs` names the score rows and extras that the engine has to hand over in `VisionStates`."""

    @property
    def needs(self) -> frozenset[str]:
        """Any of `cls_attention`, `received_attention`, `keys`, `attention_rows`."""
        ...

    def __call__(self, states: VisionStates, budget: Stage1) -> Reduction:
        """Reduce every picture of the batch to the budget's count."""
        ...


class DecoderPruner(Protocol):
    """Stage 2. Scores visual tokens; the engine keeps the best of each row."""

    @property
    def needs_salient(self) -> bool:
        """Whether `LayerView.salient` has to be filled, which takes the tokenizer."""
        ...

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """Rank the visual tokens.

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


class ModelAdapter(Protocol):
    """The only place that knows a backbone's attribute names."""

    @property
    def positions(self) -> str:
        """Released behaviour: `renumber` (LLaVA family) or `keep` (M-RoPE)."""
        ...

    def body(self, model: Any) -> Any:
        """The module without head whose forward takes `input_ids` and `pixel_values`."""
        ...

    def text_model(self, model: Any) -> Any:
        """The decoder stack: `embed_tokens`, `layers`, `norm`, `rotary_emb`."""
        ...

    def encode(self, body: Any, inputs: dict, needs: frozenset[str]) -> VisionStates:
        """Run the tower up to the feature layer and hand over the score rows asked for."""
        ...

    def project(self, body: Any, features: Tensor) -> Tensor:
        """`[B, K, D] -> [B, K, Dt]`: the projector."""
        ...

    def full_tokens(self, body: Any, states: VisionStates) -> Tensor:
        """`[B, N, D]`: what the stock model feeds to the projector."""
        ...

    def pictures_per_row(self, body: Any, input_ids: Tensor) -> list[int]:
        """Pictures of each prompt row, counted by placeholders."""
        ...

    def layout(self, body: Any, input_ids: Tensor, attention_mask: Tensor | None, pictures: int) -> Layout:
        """Find the placeholders of each picture in the prompt."""
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
