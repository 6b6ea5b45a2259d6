"""Video-LLaVA for the engine: where `VideoLlavaForConditionalGeneration` keeps its parts.

Pictures and videos have separate CLIP towers; a video goes through its tower frame by frame. Budget counts are per
picture or frame. A frame has a placeholder for CLS, a picture does not: 8 x 257 and 256 at 224 pixels.

The original's stage 1 does not run on this model, and its stage 2 ranks only the first frame, guided by that frame's
last token. Here all visual tokens of a row, in all frames of a video, are ranked together, guided by the text after
them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from duet.backbones import clip
from duet.backbones.placement import Units, merge_parts, on_host
from duet.errors import UserError
from duet.ops.regions import project
from duet.types import Unit

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import Placement, Reduction, VisionStates


@dataclass(frozen=True)
class Kind:
    """The pictures of a call, or the frames of its videos.

    Attributes:
        name: for messages.
        tower: `CLIPVisionModel`.
        pixels: `[P, 3, H, W]`.
        placeholder: `[B, T]` bool.
        size: placeholders of one picture or frame.
        at_once: frames per entry of the pixel argument; 1 for pictures.
    """

    name: str
    tower: Any
    pixels: Tensor
    placeholder: Tensor
    size: int
    at_once: int = 1

    def entries(self) -> list[int]:
        """Number of entries of the pixel argument in each prompt row, from its placeholders.

        Raises:
            ValueError: a row's placeholders do not make a whole number of pictures or videos, or not as many as given.
        """
        counts, size = self.placeholder.sum(1).tolist(), self.size * self.at_once
        given = len(self.pixels) // self.at_once
        if any(count % size for count in counts) or sum(counts) != given * size:
            raise ValueError(
                f"the prompt rows hold {counts} {self.name} placeholders, but got {given} {self.name}(s) of {size} "
                "tokens each; make prompt and pixels with the same processor"
            )
        return [count // size for count in counts]


class VideoLlavaVision:
    """The vision side of `VideoLlavaForConditionalGeneration`: two CLIP towers, one projector (`VisionSide`)."""

    provides = clip.PROVIDES
    scores = ("cls_row", "column_mean")
    capped = False
    # the second is an older name for the first
    pixel_names = ("pixel_values", "pixel_values_images", "pixel_values_videos")
    switches: ClassVar[dict[str, tuple[str, ...]]] = {}

    def body(self, model: Any) -> Any:
        """`VideoLlavaModel`.

        Raises:
            UserError: its towers are not CLIP.
        """
        tower = model.config.vision_config.model_type
        if tower != "clip_vision_model":
            raise UserError(f"the vision towers are {tower}; compression of Video-LLaVA needs clip_vision_model")
        return model.model

    def encode(self, body: Any, inputs: dict[str, Any], needs: frozenset[str]) -> list[VisionStates]:
        """Encode pictures, then the frames of all videos, each in prompt order."""
        layer = clip.feature_layer(body.config, inputs)
        kinds = _kinds(body, inputs)
        return [clip.encode_in_chunks(kind.tower, kind.pixels, layer, needs) for kind in kinds]

    def units(self, body: Any, inputs: dict[str, Any], states: list[VisionStates]) -> list[list[Unit]]:
        """One unit per picture or frame."""
        found, first = [], 0
        for kind in _kinds(body, inputs):
            rows = [row for row, entries in enumerate(kind.entries()) for _ in range(entries)]
            role = "frame" if kind.name == "video" else "picture"
            numbers = [(first + number, row) for number, row in enumerate(rows)]
            found.append([Unit(row, medium, role, at) for medium, row in numbers for at in range(kind.at_once)])
            first += len(rows)
        return found

    def project(self, body: Any, features: Tensor) -> Tensor:
        """`[B, N, D] -> [B, N, P]`."""
        return project(body.multi_modal_projector, features)["features"]

    def placeholders(self, body: Any, input_ids: Tensor) -> Tensor:
        """`[B, T]` bool, for pictures and videos."""
        return (input_ids == body.config.image_token_id) | (input_ids == body.config.video_token_id)

    def place(
        self,
        body: Any,
        inputs: dict[str, Any],
        states: list[VisionStates],
        reductions: list[Reduction] | None,
        in_place: bool,
    ) -> Placement:
        """Put pictures and frames in the order of their placeholders; the projector runs last."""
        _check_absent(body, inputs)
        parts, places = [], []
        for number, kind in enumerate(_kinds(body, inputs)):
            kind.entries()
            units = Units(kind.placeholder, [kind.size] * len(kind.pixels), inputs["input_ids"].device)
            reduction = reductions[number] if reductions else None
            part = units.fill(range(len(kind.pixels)), number, states[number], reduction, in_place)
            if reduction is None or not reduction.projected:
                part = replace(part, features=self.project(body, part.features))
            parts.append(part)
            places.append(units)
        return merge_parts(parts, places, inputs.get("attention_mask"))

    def rows_of_pixels(self, body: Any, inputs: dict[str, Any]) -> dict[str, list[int]]:
        """Number of pictures and videos in each prompt row."""
        rows = {kind.name: kind.entries() for kind in _kinds(body, inputs)}
        names = {"pixel_values": "picture", "pixel_values_images": "picture", "pixel_values_videos": "video"}
        return {name: rows[kind] for name, kind in names.items() if kind in rows}


def _kinds(body: Any, inputs: dict[str, Any]) -> list[Kind]:
    """The kinds of media in the call, pictures first."""
    config, ids = body.config, on_host(inputs, "input_ids")
    patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    full = config.vision_feature_select_strategy == "full"
    pictures, videos = _pictures(inputs), inputs.get("pixel_values_videos")
    kinds = []
    if pictures is not None:
        marks = ids == config.image_token_id
        kinds.append(Kind("picture", body.image_tower, pictures, marks, patches + full))
    if videos is not None:
        if videos.ndim != 5:
            raise ValueError(f"pixel_values_videos is {tuple(videos.shape)}, expected [videos, frames, 3, H, W]")
        marks, frames = ids == config.video_token_id, videos.shape[1]
        kinds.append(Kind("video", body.video_tower, videos.flatten(0, 1), marks, patches + 1, frames))
    return kinds


def _pictures(inputs: dict[str, Any]) -> Tensor | None:
    new = inputs.get("pixel_values")
    return inputs.get("pixel_values_images") if new is None else new


def _check_absent(body: Any, inputs: dict[str, Any]) -> None:
    """Refuse placeholders without pixels, which the stock model would silently read as words."""
    given = {"image": _pictures(inputs), "video": inputs.get("pixel_values_videos")}
    for kind, pixels in given.items():
        marks = on_host(inputs, "input_ids") == getattr(body.config, f"{kind}_token_id")
        mask = on_host(inputs, "attention_mask")
        if pixels is None and bool((marks if mask is None else marks & mask.bool()).any()):
            raise ValueError(f"the prompt has {kind} placeholders, but no {kind}s were passed")
