"""CLIP vision towers: run up to the feature layer, and compute the score rows that a method needs.

Features and scores come from the same layer: LLaVA reads `hidden_states[-2]`, the output of layer index 22 of 24, and
`clip_encoder_cw.py` uses attention and keys of that layer. Later layers never run; methods that need it (PruMerge) read
the attention of the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from duet.backbones.kept import features_of
from duet.ops.regions import region
from duet.ops.scores import attention_probabilities, mean_rows, received_attention
from duet.types import VisionStates

if TYPE_CHECKING:
    from collections.abc import Set

    from torch import Tensor

    from duet.types import AttentionRows

#: Needs of vision reducers that a CLIP tower meets.
PROVIDES = frozenset(
    {"keys", "attention_rows", "wide_cls_attention_last", "wide_keys_last"}
    | {f"{score}{where}" for score in ("cls_attention", "received_attention") for where in ("", "_shallow", "_first")}
)
#: Frames that go through the tower together, so memory does not grow with the length of a video.
CHUNK = 16


def feature_layer(config: Any, inputs: dict[str, Any]) -> int:
    """The layer whose output the projector reads: an index into the hidden states.

    Args:
        config: the model's, with `vision_feature_layer` and `vision_feature_select_strategy`.
        inputs: arguments of the forward, which may name another layer.

    Raises:
        ValueError: several layers, or another select strategy than the config's.
    """
    layer = inputs.get("vision_feature_layer")
    layer = config.vision_feature_layer if layer is None else layer
    if not isinstance(layer, int):
        raise ValueError(f"vision_feature_layer {layer}: compression reads one feature layer, not several")
    strategy = inputs.get("vision_feature_select_strategy") or config.vision_feature_select_strategy
    if strategy != config.vision_feature_select_strategy:
        raise ValueError(f"vision_feature_select_strategy {strategy!r}: set it in the model's config instead")
    return layer


def encode(
    tower: Any, pixel_values: Tensor, feature_layer: int, needs: frozenset[str], chunk: int | None = None
) -> VisionStates:
    """Encode a batch of pictures.

    Args:
        tower: `CLIPVisionModel`.
        pixel_values: `[B, 3, H, W]`.
        feature_layer: index into the hidden states (0 = embeddings), negative from the end, as in
            `vision_feature_layer`.
        needs: score rows and extras to compute, see `VisionStates`.
        chunk: pictures at a time; None: all.

    Inside a block of `Features.about`, the tower runs only for pictures that are not kept.
    """

    def run(pixels: Tensor) -> VisionStates:
        return _join([_run(tower, some, feature_layer, needs) for some in pixels.split(chunk or max(len(pixels), 1))])

    kept = features_of(tower)
    if kept is None:
        return run(pixel_values)
    kind = f"{feature_layer}_{'_'.join(sorted(needs & PROVIDES))}"
    whole = len(pixel_values)
    rows = kept.read(
        tower,
        kind,
        whole,
        tower.embeddings.patch_embedding.weight.device,
        lambda places: _by_picture(run(pixel_values if len(places) == whole else pixel_values[places])),
    )
    parts = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    named: dict[str, Any] = {name: value for name, value in parts.items() if not name.startswith(SCORE)}
    scores = {name.removeprefix(SCORE): value for name, value in parts.items() if name.startswith(SCORE)}
    return VisionStates(**named, scores=scores, grid=_grid(tower, pixel_values))


#: Prefix of score rows among the kept tensors of a picture.
SCORE = "scores."


def _by_picture(states: VisionStates) -> list[dict[str, Tensor]]:
    """What `encode` found of each picture, by name."""
    parts = {name: getattr(states, name) for name in ("features", "cls", "keys", "wide_keys_last")}
    parts |= {SCORE + name: value for name, value in states.scores.items()}
    found = {name: value for name, value in parts.items() if value is not None}
    return [{name: value[row] for name, value in found.items()} for row in range(len(states.features))]


def _grid(tower: Any, pixel_values: Tensor) -> tuple[int, int, int]:
    height, width = pixel_values.shape[-2:]
    return 1, height // tower.config.patch_size, width // tower.config.patch_size


def _run(tower: Any, pixel_values: Tensor, feature_layer: int, needs: frozenset[str]) -> VisionStates:
    count = feature_layer + len(tower.encoder.layers) + 1 if feature_layer < 0 else feature_layer
    if not 1 <= count <= len(tower.encoder.layers):
        raise ValueError(f"vision_feature_layer {feature_layer}: the tower has {len(tower.encoder.layers)} layers")
    if needs & WIDE and count == len(tower.encoder.layers):
        raise ValueError(
            f"vision_feature_layer {feature_layer}: {', '.join(sorted(needs & WIDE))} needs a layer after it"
        )
    device = tower.embeddings.patch_embedding.weight.device
    if device.type != "meta":  # offloaded: accelerate brings pixels and weights together
        pixel_values = pixel_values.to(device)
    parts = _layers(tower, pixel_values, count, needs)
    scores = {name.removeprefix(SCORE): parts.pop(name) for name in list(parts) if name.startswith(SCORE)}
    q, k = parts.pop("queries", None), parts.pop("map_keys", None)
    rows = None if q is None or k is None else _rows(q, k, tower.encoder.layers[count - 1].self_attn.scale)
    named: dict[str, Any] = {**parts, "attention_rows": rows}
    return VisionStates(**named, scores=scores, grid=_grid(tower, pixel_values))


@region
def _layers(tower: Any, pixel_values: Tensor, count: int, needs: frozenset[str]) -> dict[str, Tensor]:
    """Fields of `VisionStates` after `count` layers; score rows by `SCORE` and their name."""
    layers, found = tower.encoder.layers, Found()
    hidden = tower.pre_layrnorm(tower.embeddings(pixel_values))
    for number, layer in enumerate(layers[:count]):
        for where, at in ((SHALLOW, shallow_layer(len(layers))), (FIRST, 0)):
            if number == at:
                found.read(
                    layer, hidden.detach(), {need.removesuffix(where) for need in needs if need.endswith(where)}, where
                )
        if number == count - 1:
            found.read(layer, hidden.detach(), needs)
        hidden = layer(hidden, None)
    if needs & WIDE:
        found.read_wide(layers[count], hidden.detach(), needs)
    return {"features": hidden[:, 1:], "cls": hidden[:, 0], **found.parts}


def encode_in_chunks(tower: Any, pixel_values: Tensor, feature_layer: int, needs: frozenset[str]) -> VisionStates:
    """`encode` for any number of frames, `CHUNK` of them at a time; all at once if processes share the tower's weights.

    Those have to run it equally often, and one may have more frames than another.
    """
    shared = any(hasattr(value, "ds_id") or hasattr(value, "device_mesh") for value in tower.parameters())
    size = len(pixel_values) if shared else CHUNK
    return encode(tower, pixel_values, feature_layer, needs, size)


def _join(parts: list[VisionStates]) -> VisionStates:
    """States of chunks as one."""
    if len(parts) == 1:
        return parts[0]
    maps = [part.attention_rows for part in parts if part.attention_rows is not None]
    sizes = [len(part.features) for part in parts]

    def rows(index: Tensor) -> Tensor:
        return torch.cat([one(some) for one, some in zip(maps, index.split(sizes), strict=True)])

    def whole(name: str) -> Tensor | None:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else torch.cat(found)

    return VisionStates(
        features=torch.cat([part.features for part in parts]),
        cls=whole("cls"),
        keys=whole("keys"),
        wide_keys_last=whole("wide_keys_last"),
        scores={name: torch.cat([part.scores[name] for part in parts]) for name in parts[0].scores},
        grid=parts[0].grid,
        attention_rows=rows if maps else None,
    )


def cut(states: VisionStates, pictures: Tensor, patches: Tensor, grid: tuple[int, int]) -> VisionStates:
    """Cut a part of the same size out of selected pictures.

    Args:
        states: of all pictures, `[B, N, D]`.
        pictures: `[P]`, the selected pictures.
        patches: `[P, M]`, the patches of each part, row by row.
        grid: rows and columns of these patches.
    """
    device = states.features.device
    pictures, patches = (one.to(device, non_blocking=True) for one in (pictures, patches))
    where = (pictures[:, None], patches)
    whole_maps = states.attention_rows

    def rows(index: Tensor) -> Tensor:
        assert whole_maps is not None
        wanted = index.new_zeros(len(states.features), index.shape[1])
        wanted[pictures] = patches.gather(1, index)
        maps = whole_maps(wanted)[pictures]
        return maps.gather(2, patches[:, None].expand(-1, index.shape[1], -1))

    return VisionStates(
        features=states.features[where],
        cls=None if states.cls is None else states.cls[pictures],
        keys=None if states.keys is None else states.keys[where],
        wide_keys_last=None if states.wide_keys_last is None else states.wide_keys_last[where],
        scores={name: score[where] for name, score in states.scores.items()},
        grid=(1, *grid),
        attention_rows=None if whole_maps is None else rows,
    )


SHALLOW, FIRST = "_shallow", "_first"
WIDE = frozenset({"wide_cls_attention_last", "wide_keys_last"})


def shallow_layer(depth: int) -> int:
    """Index of the shallow layer: 5 of 24 (VScan), scaled to other depths."""
    return 5 * depth // 24


class Found:
    """Score rows and keys read from single layers, without CLS.

    Attributes:
        parts: fields of `VisionStates`; score rows by `SCORE` and their name; `queries` and `map_keys` of attention
            rows, `[B, H, 1 + N, d]`.
    """

    def __init__(self) -> None:
        self.parts: dict[str, Tensor] = {}

    def read(self, layer: Any, hidden: Tensor, needs: Set[str], where: str = "") -> None:
        """Compute what is needed from a layer's q and k.

        Args:
            layer: encoder layer.
            hidden: `[B, 1 + N, D]`, its input.
            needs: what to compute; unknown names are ignored.
            where: suffix of the score names.
        """
        if not needs & {"keys", "cls_attention", "received_attention", "attention_rows"}:
            return
        attention = layer.self_attn
        normed = layer.layer_norm1(hidden)

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)

        k = heads(attention.k_proj(normed))
        if "keys" in needs:
            self.parts["keys"] = k.mean(1)[:, 1:].detach()
        if "cls_attention" in needs:
            q = heads(attention.q_proj(normed[:, :1]))
            rows = attention_probabilities(q, k, attention.scale).sum(1)
            self.parts[f"{SCORE}cls_attention{where}"] = rows[:, 0, 1:].detach()
        if needs & {"received_attention", "attention_rows"}:
            q = heads(attention.q_proj(normed)).detach()
            if "received_attention" in needs:
                received = received_attention(q, k, attention.scale)
                self.parts[f"{SCORE}received_attention{where}"] = received[:, 1:].detach()
            if "attention_rows" in needs:
                self.parts |= {"queries": q, "map_keys": k}

    def read_wide(self, layer: Any, hidden: Tensor, needs: Set[str]) -> None:
        """Read the layer after the features without splitting heads (LLaVA-PruMerge): raw q and k at full width."""
        normed = layer.layer_norm1(hidden)
        k = layer.self_attn.k_proj(normed)
        if "wide_keys_last" in needs:
            self.parts["wide_keys_last"] = k[:, 1:].detach()
        if "wide_cls_attention_last" in needs:
            q = layer.self_attn.q_proj(normed[:, :1])
            rows = attention_probabilities(q[:, None], k[:, None], k.shape[-1] ** -0.5)
            self.parts[f"{SCORE}wide_cls_attention_last"] = rows[:, 0, 0, 1:].detach()


def _rows(q: Tensor, k: Tensor, scale: float) -> AttentionRows:
    def rows(index: Tensor) -> Tensor:
        wanted = q.gather(2, (index + 1)[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3]))
        return mean_rows(wanted, k, scale)[..., 1:].detach()

    return rows
