"""LLaMA-like decoders (LLaMA, Mistral, Qwen2, Qwen3): rotary tables, and q, k and v of one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from duet.ops.gather import take
from duet.ops.regions import once
from duet.ops.rope import rotate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LlamaRanking:
    """Lazy q, k and v of the layer that the tokens are about to enter.

    Args:
        layer: decoder layer with `input_layernorm`, `self_attn.{q_proj, k_proj, v_proj, head_dim, scaling}` and
            optionally `self_attn.{q_norm, k_norm}`, which normalise each head before the rotary embedding (Qwen3).
        hidden: `[B, T, D]`, before the layer's norm.
        rope: `cos, sin`, each `[B, T, d]`.
    """

    layer: Any
    hidden: Tensor
    rope: tuple[Tensor, Tensor]

    @property
    def scale(self) -> float:
        """Factor on the logits."""
        return self.layer.self_attn.scaling

    def keys(self) -> Tensor:
        """`[B, Hkv, T, d]`, after RoPE."""
        return self._keys

    def values(self) -> Tensor:
        """`[B, Hkv, T, d]`."""
        attention = self.layer.self_attn
        return attention.v_proj(self._normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    def queries(self, index: Tensor) -> Tensor:
        """`[B, H, C, d]` of the tokens `index [B, C]`, after RoPE."""
        cos, sin = (take(table.expand(*index.shape[:1], *table.shape[1:]), index) for table in self.rope)
        return rotate(self._heads("q", take(self._normed, index)), cos, sin)

    @once
    def _normed(self) -> Tensor:
        return self.layer.input_layernorm(self.hidden)

    @once
    def _keys(self) -> Tensor:
        return rotate(self._heads("k", self._normed), *self.rope)

    def _heads(self, name: str, normed: Tensor) -> Tensor:
        attention = self.layer.self_attn
        heads = getattr(attention, f"{name}_proj")(normed).unflatten(-1, (-1, attention.head_dim))
        norm = getattr(attention, f"{name}_norm", None)
        return (heads if norm is None else norm(heads)).transpose(1, 2)


class LlamaDecoder:
    """The decoder side of models that number the prompt 0, 1, 2, ... (`DecoderSide`).

    Text models that are not listed here scale embeddings or residuals (Granite), normalise q and k (Qwen3), rotate
    interleaved pairs (Cohere), or were not checked: the ranking would be wrong for them.
    """

    text_models: ClassVar[tuple[str, ...]] = ("LlamaModel", "MistralModel", "Qwen2Model")

    def text_model(self, model: Any) -> Any:
        """`LlamaModel` or a similar one."""
        return model.model.language_model

    def position_ids(self, body: Any, inputs: dict[str, Any]) -> None:
        """0, 1, 2, ..."""
        return

    def rope(self, lm: Any, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """`cos, sin`, each `[B, T, d]`."""
        return lm.rotary_emb(hidden, position_ids=positions)

    def attention(self, layer: Any) -> Any:
        """The attention module of a decoder layer."""
        return layer.self_attn

    def ranking(self, layer: Any, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> LlamaRanking:
        """Queries and keys of a decoder layer."""
        return LlamaRanking(layer, hidden, rope)
