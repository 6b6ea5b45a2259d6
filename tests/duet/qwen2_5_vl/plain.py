"""One row through a Qwen text model, the slow way: no cache, one token set per layer, every layer from the first token.

Which tokens are left at each boundary is taken from a trace; everything else is recomputed, so this is what cached
decoding and beams have to give.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.tiny_qwen import IMAGE, VIDEO, Row, collate


def recompute(model: Any, row: Row, trace: Any, new: Tensor, compression: Any = None) -> Tensor:
    """Logits `[len(new) + 1, V]` from the last prompt token on.

    Args:
        model: Qwen; attached compression does not matter here.
        row: the prompt.
        trace: of the row alone.
        new: tokens after the prompt.
        compression: names the layers of text alone, and those that read but do not update what came from pictures.
    """
    frozen = () if compression is None else compression.frozen
    absences = () if compression is None else compression.absences
    alone = [number for start, end in absences for number in range(start, end)]
    whole = row.ending(new)
    prompt = len(row.ids)
    body, lm = model.model, model.model.language_model
    batch = collate([whole])
    ids = batch["input_ids"]
    grids = {name: batch.get(name) for name in ("image_grid_thw", "video_grid_thw")}
    positions, _ = body.get_rope_index(ids, mm_token_type_ids=batch["mm_token_type_ids"], **grids)
    # words after the prompt do not move it: their ids continue from the prompt's last one
    hidden = lm.embed_tokens(ids)
    columns, streams = enter(body, row, trace, hidden)
    columns = columns + list(range(prompt, len(whole.ids)))
    visual = [column for column in columns if ids[0, column] in (IMAGE, VIDEO)]
    hidden, dropped = streams[0][:, columns], {stage.boundary: stage.kept[0].tolist() for stage in trace.stages}
    for number, layer in enumerate(lm.layers):
        if number in dropped:
            left = {visual[index] for index in dropped[number]}
            keep = [at for at, column in enumerate(columns) if column not in visual or column in left]
            hidden, columns = hidden[:, keep], [columns[at] for at in keep]
        text = [at for at, column in enumerate(columns) if column not in visual]
        runs = text if number in alone else list(range(len(columns)))
        tables = lm.rotary_emb(hidden, position_ids=positions[:, :, [columns[at] for at in runs]])
        mask = torch.full((len(runs), len(runs)), float("-inf")).triu(1)[None, None]
        states = layer(hidden[:, runs], attention_mask=mask, position_embeddings=tables)[0]
        updated = text if number in frozen else runs
        hidden = torch.stack([states[runs.index(at)] if at in updated else one for at, one in enumerate(hidden[0])])
        hidden = hidden[None]
        if number + 1 < len(streams):
            hidden = hidden + streams[number + 1][:, columns]
    return model.lm_head(lm.norm(hidden))[0, -len(new) - 1 :]


def enter(body: Any, row: Row, trace: Any, hidden: Tensor) -> tuple[list[int], list[Tensor]]:
    """Columns of the prompt that enter the language model, the embeddings with features in them, and DeepStack's."""
    ids = row.ids
    columns = [column for column in range(len(ids)) if ids[column] not in (IMAGE, VIDEO)]
    levels = len(getattr(body.visual, "deepstack_merger_list", ()))
    streams = [hidden.clone(), *(torch.zeros_like(hidden) for _ in range(levels))]
    units = {"image": [], "video": []}
    for kind, token in (("image", IMAGE), ("video", VIDEO)):
        places = (ids == token).nonzero().flatten()
        if len(places):
            seen = body.visual(row.pixels[kind], grid_thw=row.grids[kind])
            levels = [seen.pooler_output, *(seen.get("deepstack_features") or ())]
            for stream, features in zip(streams, levels, strict=True):
                stream[0, places] = features
        sizes = [h * w // 4 for t, h, w in row.grids[kind].tolist() for _ in range(t)]
        units[kind] = list(places.split(sizes)) if sizes else []
    starts = sorted(units["image"] + units["video"], key=lambda unit: int(unit[0]))
    if not trace.reductions:
        return list(range(len(ids))), streams
    for unit, reduction in zip(starts, trace.reductions[0], strict=True):
        slots = unit[reduction.kept[0]]
        for stream, features in zip(streams, [reduction.features, *reduction.deep], strict=True):
            stream[0, slots] = features[0]
        columns += slots.tolist()
    return sorted(columns), streams
