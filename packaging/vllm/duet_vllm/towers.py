"""vLLM's vision towers in the shape that `duet.backbones` reads: fused projections are split."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class ClipTower:
    """A `CLIPVisionTransformer` of vLLM for `duet.backbones.clip`.

    Args:
        tower: with the layers up to the features, or one more for methods that read the next one.
    """

    def __init__(self, tower: Any) -> None:
        self.config, self.parameters = tower.config, tower.parameters
        self.embeddings, self.pre_layrnorm = tower.embeddings, tower.pre_layrnorm
        self.encoder = SimpleNamespace(layers=[_ClipLayer(layer) for layer in tower.encoder.layers])


class _ClipLayer:
    def __init__(self, layer: Any) -> None:
        self.layer, self.layer_norm1 = layer, layer.layer_norm1
        attention = layer.self_attn
        width = attention.embed_dim
        self.self_attn = SimpleNamespace(
            num_heads=attention.num_heads,
            head_dim=attention.head_dim,
            scale=attention.scale,
            q_proj=lambda x: attention.qkv_proj(x)[0][..., :width],
            k_proj=lambda x: attention.qkv_proj(x)[0][..., width : 2 * width],
        )

    def __call__(self, hidden: Tensor, mask: None) -> Tensor:
        return self.layer(hidden)


class QwenTower:
    """A `Qwen2_5_VisionTransformer` of vLLM for `duet.backbones.qwen`."""

    def __init__(self, tower: Any) -> None:
        self.tower, self.dtype = tower, tower.dtype
        self.spatial_merge_size, self.patch_size = tower.spatial_merge_size, tower.patch_size
        self.window_size, self.fullatt_block_indexes = tower.window_size, tower.fullatt_block_indexes
        self.blocks = [_QwenBlock(block) for block in tower.blocks]

    def __call__(self, pixels: Tensor, grid_thw: Tensor) -> SimpleNamespace:
        """Features `[N, D]` of all pictures, in raster order."""
        return SimpleNamespace(pooler_output=self.tower(pixels, grid_thw.tolist()))


class _QwenBlock:
    def __init__(self, block: Any) -> None:
        self.block, self.norm1 = block, block.norm1
        attention = block.attn
        self.attn = SimpleNamespace(
            num_heads=attention.num_attention_heads_per_partition,
            scaling=attention.hidden_size_per_attention_head**-0.5,
            qkv=lambda x: attention.qkv(x)[0],
        )

    def register_forward_pre_hook(self, note: Callable[..., None], with_kwargs: bool = True) -> _Both:
        """Call `note` as transformers' block would: hidden `[T, D]`, cos and sin `[T, d]`.

        vLLM calls a block past its own hooks, so its norm and its attention are watched.
        """
        seen: list[Tensor] = []

        def enter(module: Any, args: tuple) -> None:
            seen.append(args[0].squeeze(1))

        def attend(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            tables = (kwargs["rotary_pos_emb_cos"], kwargs["rotary_pos_emb_sin"])
            rope = tuple(torch.cat([table, table], dim=-1) for table in tables)
            note(module, (seen.pop(),), {"position_embeddings": rope})

        first = self.block.norm1.register_forward_pre_hook(enter)
        return _Both(first, self.block.attn.register_forward_pre_hook(attend, with_kwargs=True))


class _Both:
    """Two handles as one."""

    def __init__(self, *handles: Any) -> None:
        self.handles = handles

    def remove(self) -> None:
        """Remove both hooks."""
        for handle in self.handles:
            handle.remove()
