"""LLaVA-NeXT for the engine: where `LlavaNextForConditionalGeneration` keeps its parts.

Budget counts are per crop: the whole picture, and each of its tiles. Patches of padding belong to no crop
(`duet/llava/anyres.py`), so a tile may have fewer patches than the budget asks for; counts are limited to them. Newline
tokens are never merged, ranked or dropped.

Order of a reduced picture, as released: the base crop's `[CLS, dominant, contextual]`; the dominant patches of all
tiles, row by row of the picture; the tiles' CLS; the tiles' contextual tokens, tile by tile. The released code has no
unpadding and drops newlines, except after a picture of one crop. Here they stay (`newlines="keep"`): each one ends its
row of the picture, after the row's dominant patches if any are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from duet.backbones import clip
from duet.backbones.placement import Units, merge_parts, on_host, own_slots
from duet.edit import NONE
from duet.errors import UserError
from duet.llava.anyres import Group, Picture, base_alone, group_crops, lay_out
from duet.ops.regions import project
from duet.types import Filling, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import Placement, Reduction, VisionStates


@dataclass(frozen=True)
class LlavaNextVision:
    """The vision side of `LlavaNextForConditionalGeneration` with a CLIP tower (`VisionSide`).

    Args:
        newlines: `keep` or `drop` (released) the newline tokens of reduced pictures, see the module docstring.
    """

    newlines: str = "keep"

    provides: ClassVar = clip.PROVIDES
    scores: ClassVar = ("cls_row", "column_mean")
    capped: ClassVar = True
    pixel_names: ClassVar = ("pixel_values",)
    switches: ClassVar[dict[str, tuple[str, ...]]] = {"newlines": ("keep", "drop")}

    def body(self, model: Any) -> Any:
        """`LlavaNextModel`.

        Raises:
            UserError: its tower is not CLIP, or it passes on CLS, which the stock model cannot fit into tiles.
        """
        tower, strategy = model.config.vision_config.model_type, model.config.vision_feature_select_strategy
        if tower != "clip_vision_model":
            raise UserError(f"the vision tower is {tower}; compression of LLaVA-NeXT needs clip_vision_model")
        if strategy != "default":
            raise UserError(
                f"vision_feature_select_strategy is {strategy!r}: LLaVA-NeXT assembles tiles from patches only, "
                "even without compression; set it to 'default' in the model's config"
            )
        return model.model

    def encode(self, body: Any, inputs: dict[str, Any], needs: frozenset[str]) -> list[VisionStates]:
        """Encode the crops of every picture without their padding, in one group per size.

        Raises:
            ValueError: `image_sizes` is missing or does not fit the pixels.
        """
        pictures, pixels = _pictures(body, inputs), inputs["pixel_values"]
        if pixels.ndim == 5:
            pixels = torch.cat([one[: picture.count] for one, picture in zip(pixels, pictures, strict=True)])
        layer = clip.feature_layer(body.config, inputs)
        whole = clip.encode(body.vision_tower, pixels, layer, needs)
        groups, _ = group_crops(pictures, _side(body))
        return [clip.cut(whole, group.crops, group.patches, group.grid) for group in groups]

    def units(self, body: Any, inputs: dict[str, Any], states: list[VisionStates]) -> list[list[Unit]]:
        """One unit per crop; the base crop of each picture comes first."""
        pictures = _pictures(body, inputs)
        rows = _units(self, body, inputs, pictures).rows
        row_of = {number: row for row, numbers in enumerate(rows) for number in numbers}
        groups, _ = group_crops(pictures, _side(body))
        found = []
        for group in groups:
            members = zip(group.pictures.tolist(), group.tiles.tolist(), strict=True)
            found.append([_unit(row_of[number], number, tile, pictures[number]) for number, tile in members])
        return found

    def project(self, body: Any, features: Tensor) -> Tensor:
        """`[B, N, D] -> [B, N, P]`."""
        return project(body.multi_modal_projector, features)["features"]

    def placeholders(self, body: Any, input_ids: Tensor) -> Tensor:
        """`[B, T]` bool, newlines included."""
        return input_ids == body.config.image_token_id

    def place(
        self,
        body: Any,
        inputs: dict[str, Any],
        states: list[VisionStates],
        reductions: list[Reduction] | None,
        in_place: bool,
    ) -> Placement:
        """Put pictures in the order of their placeholders; the projector runs after merging.

        Raises:
            ValueError: the prompt's placeholders do not match the pictures.
        """
        pictures = _pictures(body, inputs)
        units = _units(self, body, inputs, pictures)
        groups, places = group_crops(pictures, _side(body))
        features = _project(body, states, reductions, groups, sum(picture.count for picture in pictures))
        features = features.to(states[0].features.device)  # the projector may be on another device
        address, origin = _addresses(pictures, groups, reductions, in_place, features.device)
        ends = _row_ends(pictures, reductions is None or self.newlines == "keep").to(features.device, non_blocking=True)
        if reductions is not None and not in_place:
            address, ends = _close_gaps(torch.cat([address, ends])).split([len(address), len(ends)])
        keep = reductions is None or self.newlines == "keep"
        units.separators = [len(one.newlines) * (keep or one.count == 1) for one in pictures]
        _count(units, groups, states, reductions)
        order = address.argsort()
        visual = Filling(_mask(units, address), features[order], origin[order])
        newline = body.image_newline.to(features.device, features.dtype)
        separators = Filling(_mask(units, ends), newline.expand(len(ends), -1), None)
        return merge_parts(
            [visual, separators], [units], inputs.get("attention_mask"), [places], separators=separators.mask
        )

    def rows_of_pixels(self, body: Any, inputs: dict[str, Any]) -> dict[str, list[int]]:
        """Number of pictures (or crops, if pixels are not grouped by picture) and sizes in each prompt row."""
        if inputs.get("pixel_values") is None:
            return {}
        pictures = _pictures(body, inputs)
        units = _units(self, body, inputs, pictures)
        sizes = [len(row) for row in units.rows]
        crops = [sum(pictures[number].count for number in row) for row in units.rows]
        return {"pixel_values": sizes if inputs["pixel_values"].ndim == 5 else crops, "image_sizes": sizes}


def _units(vision: LlavaNextVision, body: Any, inputs: dict[str, Any], pictures: list[Picture]) -> Units:
    ids = inputs["input_ids"]
    return Units(vision.placeholders(body, on_host(inputs, "input_ids")), [one.size for one in pictures], ids.device)


def _count(units: Units, groups: list[Group], states: list[VisionStates], reductions: list[Reduction] | None) -> None:
    """Note how many tokens each picture has, newlines not counted, unless only the device knows."""
    if reductions is not None and any(reduction.ragged for reduction in reductions):
        return
    counts = [0] * len(units.sizes)
    for number, group in enumerate(groups):
        each = states[number].features.shape[1] if reductions is None else reductions[number].kept.shape[1]
        for picture in group.pictures.tolist():
            counts[picture] += each
    units.filled = [*counts]


def _unit(row: int, number: int, tile: int, picture: Picture) -> Unit:
    role = "picture" if picture.count == 1 else "tile" if tile else "whole"
    offset = next(crop for crop in picture.crops if crop.number == tile).offset
    return Unit(row, number, role, tile, offset)


def _side(body: Any) -> int:
    """Side of a crop in patches."""
    return body.config.vision_config.image_size // body.config.vision_config.patch_size


def _pictures(body: Any, inputs: dict[str, Any]) -> list[Picture]:
    """The layout of every picture of a call, in prompt order.

    Pixels `[pictures, 1, 3, H, W]` are pictures of one crop each, as in the original. The stock model can assemble such
    a picture, but its forward fails on it, because it counts tiles by `image_sizes`.
    """
    pixels, sizes, side = inputs["pixel_values"], on_host(inputs, "image_sizes"), _side(body)
    if pixels.ndim not in (4, 5):
        raise ValueError(f"pixel_values is {tuple(pixels.shape)}, expected [pictures, crops, 3, H, W]")
    if pixels.ndim == 5 and pixels.shape[1] == 1:
        return [base_alone(side)] * len(pixels)
    if sizes is None:
        raise ValueError("pixel_values without image_sizes: pass everything that the processor returns")
    config = body.config
    pinpoints = tuple((height, width) for height, width in config.image_grid_pinpoints)
    pictures = [lay_out((h, w), pinpoints, config.vision_config.image_size, side) for h, w in sizes.tolist()]
    counts = [picture.count for picture in pictures]
    fits = sum(counts) == len(pixels)
    if pixels.ndim == 5:
        fits = len(counts) == len(pixels) and max(counts, default=0) <= pixels.shape[1]
    if not fits:
        raise ValueError(
            f"image_sizes {sizes.tolist()} make {counts} crops, but pixel_values is {tuple(pixels.shape)}; "
            "make both with one processor that has the model's image_grid_pinpoints"
        )
    return pictures


def _project(
    body: Any, states: list[VisionStates], reductions: list[Reduction] | None, groups: list[Group], crops: int
) -> Tensor:
    """`[F, Dt]`, the tokens of all crops, group by group."""
    if reductions is not None:
        left = torch.cat([_real(reduction, reduction.features) for reduction in reductions])
        return left if reductions[0].projected else body.multi_modal_projector(left)
    # whole crops in the order of the tower, so that logits equal the stock model's bit for bit
    whole = states[0].features.new_zeros(crops, _side(body) ** 2, states[0].features.shape[-1])
    where = [
        (group.crops[:, None].to(whole.device, non_blocking=True), group.patches.to(whole.device, non_blocking=True))
        for group in groups
    ]
    for place, group_states in zip(where, states, strict=True):
        whole[place] = group_states.features
    projected = body.multi_modal_projector(whole)
    return torch.cat([projected[place].flatten(0, 1) for place in where])


def _addresses(
    pictures: list[Picture],
    groups: list[Group],
    reductions: list[Reduction] | None,
    in_place: bool,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """`[F]` addresses of the tokens of all crops, and their `Filling.origin` `[F, 3]`, group by group.

    An address has the picture's index in the upper 32 bits and the placeholder in the lower ones. If reduced tokens
    fill the first placeholders, the lower part is only a sort key for the released order.
    """
    addresses, origins = [], []
    for number, group in enumerate(groups):
        slots = group.slots.to(device, non_blocking=True)
        if reductions is None:
            below = slots
        elif in_place:
            # padding has no slot; it is removed below
            places = own_slots(reductions[number].kept, slots.shape[1], first=0).clamp_max(slots.shape[1] - 1)
            below = slots.gather(1, places)
        else:
            own = [pictures[picture] for picture in group.pictures.tolist()]
            end = torch.tensor([[picture.size + picture.count] for picture in own]).to(device, non_blocking=True)
            below = _released_order(reductions[number], slots, group.tiles.to(device, non_blocking=True)[:, None], end)
        index = torch.arange(len(below), device=device)[:, None].expand_as(below)
        token = torch.arange(below.shape[1], device=device).expand_as(below)
        address = group.pictures.to(device, non_blocking=True)[:, None] << 32 | below
        origin = torch.stack([torch.full_like(token, number), index, token], dim=-1)
        reduction = reductions[number] if reductions else None
        addresses.append(_real(reduction, address))
        origins.append(_real(reduction, origin))
    return torch.cat(addresses), torch.cat(origins)


def _real(reduction: Reduction | None, values: Tensor) -> Tensor:
    """`[P, K, ...] -> [F, ...]`, without the padding of crops that keep fewer tokens."""
    if reduction is None or not reduction.ragged:
        return values.flatten(0, 1)
    return values[(reduction.kept != NONE).to(values.device)]


def _released_order(reduction: Reduction, slots: Tensor, tile: Tensor, end: Tensor) -> Tensor:
    """`[P, K]` sort keys for the tokens of a picture, compatible with the slots of the newlines.

    Args:
        reduction: of `P` crops.
        slots: `[P, N]`, slots of their patches.
        tile: `[P, 1]`, index in the picture, 0 for the base crop.
        end: `[P, 1]`, a number above all slots and crops of the picture.
    """
    place = torch.arange(reduction.kept.shape[1], device=slots.device).expand_as(reduction.kept)
    order = torch.where(reduction.kept < 0, end + tile, slots.gather(1, reduction.kept.clamp_min(0)))
    merged = place >= place.shape[1] - reduction.contextual
    order = torch.where(merged, (1 + tile) * 2 * end + place, order)
    return torch.where(tile == 0, place, order)


def _row_ends(pictures: list[Picture], keep: bool) -> Tensor:
    """`[L]` addresses of the newline tokens; without `keep`, only those of pictures with one crop."""
    kept = [(number, picture) for number, picture in enumerate(pictures) if keep or picture.count == 1]
    return torch.tensor([number << 32 | slot for number, picture in kept for slot in picture.newlines]).long()


def _close_gaps(address: Tensor) -> Tensor:
    """The addresses with the tokens of each picture renumbered 0, 1, 2, ... in order."""
    ordered, picture = address.sort().values, address >> 32 << 32
    return picture | (torch.searchsorted(ordered, address) - torch.searchsorted(ordered, picture))


def _mask(units: Units, address: Tensor) -> Tensor:
    """Mask of the columns of these addresses, `[B, T]` bool."""
    address = address.to(units.device, non_blocking=True)
    return units.mask(address >> 32, (address & 0xFFFFFFFF)[:, None])
