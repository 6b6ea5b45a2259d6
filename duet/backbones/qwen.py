"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL towers: run them unchanged, and compute score rows per merged (2x2) token.

A unit is a picture, or one temporal patch (two frames) of a video: the range of the tower's full attention. Scores and
keys come from the last full-attention block, after its rotary embedding, computed on the four patches of each visual
token and averaged over them (`modeling_qwen2_5vl_duet.py`; its sdpa code takes the softmax over all pictures of a call
together, which is the same for one picture). The tower has no CLS.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch

from duet.backbones.kept import features_of
from duet.ops.rope import rotate
from duet.ops.scores import mean_rows, received_by_segment
from duet.types import VisionStates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Set

    from torch import Tensor


#: Needs of vision reducers that these towers meet.
PROVIDES = frozenset({"keys", "attention_rows", "received_attention", "received_attention_shallow"})


def unit_sizes(grid_thw: Tensor, merge: int) -> list[tuple[int, int]]:
    """Height and width in visual tokens of every unit.

    Args:
        grid_thw: `[M, 3]` patches of each picture or video.
        merge: patches per side of a visual token.
    """
    return [(h // merge, w // merge) for t, h, w in grid_thw.tolist() for _ in range(t)]


def by_size(sizes: list[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """Indices of the units of each size, in order of first appearance; each group is reduced as one batch."""
    groups: dict[tuple[int, int], list[int]] = {}
    for number, size in enumerate(sizes):
        groups.setdefault(size, []).append(number)
    return groups


def window_order(height: int, width: int, window: int) -> Tensor:
    """Raster indices `[N]` of a unit's visual tokens in the order used inside a windowed tower.

    Args:
        height, width: size of the unit, in visual tokens.
        window: side of a window, in visual tokens.
    """
    rows, columns = torch.arange(height)[:, None] // window, torch.arange(width) // window
    return (rows * (width // window + 1) + columns).flatten().argsort(stable=True)


def scoring_block(tower: Any) -> Any:
    """The last block in which a patch sees its whole picture."""
    full = getattr(tower, "fullatt_block_indexes", None)
    return tower.blocks[-1 if full is None else max(full)]


def shallow_block(tower: Any) -> Any:
    """The first block in which a patch sees its whole picture; without windows, the block at 5/24 of the depth."""
    full = getattr(tower, "fullatt_block_indexes", None)
    return tower.blocks[5 * len(tower.blocks) // 24 if full is None else min(full)]


def encode(
    tower: Any, pixel_values: Tensor, grid_thw: Tensor, needs: frozenset[str], known: Tensor | None = None
) -> list[VisionStates]:
    """Encode pictures or videos: one `VisionStates` per group of `by_size`.

    Args:
        tower: `Qwen2_5_VisionTransformerPretrainedModel`, or the tower of Qwen2-VL or Qwen3-VL; DeepStack features of
            the latter become `VisionStates.deep`.
        pixel_values: `[patches, values]`.
        grid_thw: `[M, 3]` patches of each picture or video.
        needs: score rows and extras to compute, see `VisionStates`.
        known: the grid on the host, if it is there already.

    Inside a block of `Features.about`, the tower runs only for pictures and videos that are not kept.

    Raises:
        ValueError: pixels and grid do not match.
    """
    known = grid_thw.cpu() if known is None else known
    if int(known.prod(-1).sum()) != len(pixel_values):
        raise ValueError(
            f"{len(pixel_values)} patches do not match the grid {known.tolist()} (frames, height, width); "
            "take pixels and grid from the same processor call"
        )
    kept = features_of(tower)
    if kept is None:
        return _run(tower, pixel_values, grid_thw, needs, known)
    patches = known.prod(-1).tolist()

    def run(places: list[int]) -> list[dict[str, Tensor]]:
        parts = pixel_values.split(patches)
        grid = known[places]
        return _by_medium(
            _run(tower, torch.cat([parts[place] for place in places]), grid_thw[places], needs, grid),
            grid,
            tower.spatial_merge_size,
        )

    device = next(tower.parameters()).device
    rows = kept.read(tower, "_".join(["all", *sorted(needs & PROVIDES)]), len(known), device, run)
    return _by_group(rows, known, tower.spatial_merge_size)


def _by_medium(states: list[VisionStates], grid: Tensor, merge: int) -> list[dict[str, Tensor]]:
    """What `_run` found of each picture or video, `[units, ...]` each."""
    places: dict[int, tuple[VisionStates, int]] = {}
    for group, members in zip(states, by_size(unit_sizes(grid, merge)).values(), strict=True):
        places |= {unit: (group, row) for row, unit in enumerate(members)}
    found, first = [], 0
    for times in grid[:, 0].tolist():
        group, own = places[first][0], [places[unit][1] for unit in range(first, first + times)]
        parts = {"features": group.features, **({} if group.keys is None else {"keys": group.keys})}
        parts |= {SCORE + name: value for name, value in group.scores.items()}
        parts |= {f"{DEEP}{level}": value for level, value in enumerate(group.deep)}
        found.append({name: value[own] for name, value in parts.items()})
        first += times
    return found


def _by_group(rows: list[dict[str, Tensor]], grid: Tensor, merge: int) -> list[VisionStates]:
    """The opposite of `_by_medium`."""
    of_unit = [(medium, at) for medium, (times, _, _) in enumerate(grid.tolist()) for at in range(times)]
    states = []
    for (height, width), members in by_size(unit_sizes(grid, merge)).items():
        own = [of_unit[unit] for unit in members]
        parts = {name: torch.stack([rows[medium][name][at] for medium, at in own]) for name in rows[own[0][0]]}
        scores = {name.removeprefix(SCORE): value for name, value in parts.items() if name.startswith(SCORE)}
        deep = tuple(parts[name] for name in sorted(parts) if name.startswith(DEEP))
        grids = (1, height, width)
        states.append(VisionStates(parts["features"], keys=parts.get("keys"), scores=scores, deep=deep, grid=grids))
    return states


#: Prefixes of score rows and DeepStack features among the kept tensors of a picture.
SCORE, DEEP = "scores.", "deep."


def _run(
    tower: Any, pixel_values: Tensor, grid_thw: Tensor, needs: frozenset[str], known: Tensor
) -> list[VisionStates]:
    merge = tower.spatial_merge_size
    deep, shallow = {need for need in needs if not need.endswith("_shallow")}, "received_attention_shallow" in needs
    wanted = [(scoring_block(tower), deep, "")] if deep else []
    wanted += [(shallow_block(tower), {"received_attention"}, "_shallow")] if shallow else []
    with ExitStack() as stack:
        seen = [stack.enter_context(_inputs_of(block)) for block, _, _ in wanted]
        output = tower(pixel_values.type(tower.dtype), grid_thw=grid_thw)
    features = output.pooler_output
    levels = [level.to(features.device) for level in getattr(output, "deepstack_features", None) or ()]
    sizes = unit_sizes(known, merge)
    starts = torch.tensor([0, *(height * width for height, width in sizes)]).cumsum(0)
    # once per block, not per size: sharded weights are gathered whenever a module runs, on all ranks alike
    read = [_queries_and_keys(block, inputs) for (block, _, _), inputs in zip(wanted, seen, strict=True)]
    lengths = [height * width * merge**2 for height, width in sizes]
    received = [
        _received(block, *each, lengths) if "received_attention" in asked else None
        for (block, asked, _), each in zip(wanted, read, strict=True)
    ]
    states = []
    for (height, width), members in by_size(sizes).items():
        first, raster = starts[members][:, None], torch.arange(height * width)
        found: dict[str, Any] = {"scores": {}}
        held = first + _places(tower, height, width)
        patches = (held[..., None] * merge**2 + torch.arange(merge**2)).flatten(1)
        for (block, asked, where), each, sums in zip(wanted, read, received, strict=True):

            def of_group(heads: Tensor, patches: Tensor = patches) -> Tensor:
                picked = heads[patches.to(heads.device, non_blocking=True)]
                return picked.transpose(1, 2).to(features.device)

            found |= _keys_and_rows(block, *each, of_group, merge**2, asked)
            if sums is not None:
                score = sums[patches.to(sums.device, non_blocking=True)].to(features.device)
                found["scores"]["received_attention" + where] = score.unflatten(1, (-1, merge**2)).mean(2)
        own = (first + raster).to(features.device, non_blocking=True)
        found["deep"] = tuple(level[own] for level in levels)
        states.append(VisionStates(features[own], grid=(1, height, width), **found))
    return states


def _places(tower: Any, height: int, width: int) -> Tensor:
    """`[N]` index inside the tower of each visual token of a unit, in raster order."""
    if not hasattr(tower, "fullatt_block_indexes"):
        return torch.arange(height * width)
    return window_order(height, width, tower.window_size // tower.spatial_merge_size // tower.patch_size).argsort()


@contextmanager
def _inputs_of(block: Any) -> Iterator[dict[str, Any]]:
    """Record the detached inputs of a block when this thread runs it."""
    seen: dict[str, Any] = {}
    thread = get_ident()

    def note(_: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        if get_ident() == thread:
            seen["hidden"] = args[0].detach()
            seen["rope"] = kwargs["position_embeddings"]

    handle = block.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def _queries_and_keys(block: Any, seen: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """q and k of all patches after the rotary embedding (float32, as in the tower), each `[patches, H, d]`."""
    q, k, _ = block.attn.qkv(block.norm1(seen["hidden"])).unflatten(-1, (3, block.attn.num_heads, -1)).unbind(1)
    cos, sin = (table.float() for table in seen["rope"])
    turned = (rotate(heads.float().transpose(0, 1)[None], cos[None], sin[None])[0].transpose(0, 1) for heads in (q, k))
    query, key = (heads.to(q.dtype) for heads in turned)
    return query, key


@torch.no_grad()
def _received(block: Any, q: Tensor, k: Tensor, lengths: list[int]) -> Tensor:
    """Attention that each patch receives inside its unit, `[patches]`, in the order of the tower."""
    return received_by_segment(q, k, block.attn.scaling, lengths)


@torch.no_grad()
def _keys_and_rows(
    block: Any, q: Tensor, k: Tensor, of_group: Callable[[Tensor], Tensor], share: int, needs: Set[str]
) -> dict[str, Any]:
    """Keys and rows of a group of pictures, from q and k of all patches; `of_group` gives `[P, H, N x share, d]`."""
    found: dict[str, Any] = {}
    if "keys" in needs:
        found["keys"] = of_group(k).unflatten(2, (-1, share)).mean(3).mean(1)
    if "attention_rows" in needs:
        queries, keys = of_group(q), of_group(k)

        def rows(index: Tensor) -> Tensor:
            wanted = (index[..., None] * share + torch.arange(share, device=index.device)).flatten(1)
            chosen = queries.gather(2, wanted[:, None, :, None].expand(-1, queries.shape[1], -1, queries.shape[3]))
            maps = mean_rows(chosen, keys, block.attn.scaling)
            return maps.unflatten(2, (-1, share)).sum(3).unflatten(1, (-1, share)).mean(2)

        found["attention_rows"] = rows
    return found
