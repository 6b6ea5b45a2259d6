"""Rows of a conversation file as training examples.

Example: `input_ids` [T], `labels` [T], and what the family's processor makes of pictures and videos, for example
`pixel_values` [number of pictures, 3, H, W] and `pixel_values_videos` [videos, frames, 3, H, W] (absent in a text-only
row). For pictures in crops, `pixel_values` has a second dimension for them, and there is `image_sizes`.
`duet.data.collate` makes batches, padded on the right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from duet.data.collate import IGNORED, join_pixels
from duet.data.encode import Encoded, Medium, encode, process, spread
from duet.data.original import code_of
from duet.data.original.encode import FRAMES, MOST_PICTURES, MOST_VIDEOS, OriginalEncoder
from duet.data.original.qwen import QwenEncoder
from duet.data.original.tokenizer import of_tokenizer
from duet.data.pictures import open_picture, pad_to_square
from duet.data.rows import IMAGE, VIDEO, DataError, Row
from duet.data.video import read_clip
from duet.interfaces import Asking
from duet.text.pieces import PICTURE
from duet.text.placeholders import place_media

Example = dict[str, Tensor]
#: Ours, and that of the code which the family's published checkpoints were trained with.
TOKENIZATIONS = ("right", "original")
#: Values of `mm_token_type_ids`, by the processor's attribute with the token.
_TYPES = {"image_token_id": 1, "video_token_id": 2}


class ConversationDataset(Dataset[Example]):
    """Encodes rows on access.

    Args:
        rows: what `duet.data.rows.read_rows` returned.
        asking: the family's prompts, with the model's processor (`duet.families.find_asking`).
        image_folder: of the rows' pictures.
        version: prompt format; None: the checkpoint's own.
        pad_square: pad pictures to squares first (LLaVA-1.5's `image_aspect_ratio: pad`).
        max_length: longer examples are cut at their end, as LLaVA does with `model_max_length`.
        video_folder: of the rows' videos; None: `image_folder`.
        tokenization: one of `TOKENIZATIONS`.
        frames: how many of a video of so many seconds; None: the family's rule.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        asking: Asking,
        image_folder: str | Path = "",
        version: str | None = None,
        pad_square: bool = False,
        max_length: int = 2048,
        video_folder: str | Path | None = None,
        tokenization: str = "right",
        frames: Callable[[float], int] | None = None,
    ) -> None:
        if tokenization not in TOKENIZATIONS:
            raise ValueError(f"tokenization is {tokenization!r}; choose {' or '.join(TOKENIZATIONS)}")
        self.rows = list(rows)
        self.asking = asking
        self.version = version
        self.folders = {IMAGE: Path(image_folder), VIDEO: Path(image_folder if video_folder is None else video_folder)}
        self.pad_square = pad_square
        self.max_length = max_length
        self.tokenization = tokenization
        self.frames = frames or asking.frames

    @property
    def processor(self) -> Any:
        """The model's processor."""
        return self.asking.processor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[index]
        try:
            return self._example(row)
        except DataError as error:
            raise DataError(f"row {index} (id {row.name!r}): {error}") from error

    def encoded(self, row: Row, media: Sequence[Medium]) -> Encoded:
        """Token ids and labels of a row, not yet cut.

        Args:
            row: the conversation.
            media: its pictures and videos in the order of the prompt, see `media_of`.
        """
        if self.tokenization == "original":
            return self._original(row, media)
        turns = row.turns
        if row.leading:
            between = self.asking.between
            turns = tuple(
                (place_media(question, front, between) if front else question, answer)
                for front, (question, answer) in zip(row.leading, row.turns, strict=True)
            )
        pieces = self.asking.segments(turns, row.system, self.version)
        return encode(spread(pieces, media, self.asking.marks), self.processor.tokenizer)

    def media_of(self, row: Row) -> list[tuple[str, str]]:
        """(placeholder, file) of the pictures and videos that the model is fed, in order."""
        if self.tokenization != "original":
            return row.media
        # as the original: videos first, and not more than it takes
        videos, pictures = row.videos, row.images
        if self._code == "duet_video":
            videos, pictures = videos[:MOST_VIDEOS], pictures[:MOST_PICTURES]
        return [*((VIDEO, name) for name in videos), *((IMAGE, name) for name in pictures)]

    def _example(self, row: Row) -> Example:
        media = [process(self.asking, kind, self._open(kind, name)) for kind, name in self.media_of(row)]
        encoded = self.encoded(row, media)
        example = self._cut(encoded)
        if self.tokenization == "original" and self._code != "qwen":
            media = media[: self._fed(row, media)]
        for name in dict.fromkeys(name for medium in media for name in medium.pixels):
            example[name] = join_pixels(name, [medium.pixels[name] for medium in media if name in medium.pixels])
        return example

    def _open(self, kind: str, name: str) -> Any:
        if kind not in self.asking.marks:
            raise DataError(f"the video {name}: this model takes pictures only, no videos")
        path = self.folders[kind] / name
        if kind == VIDEO:
            return read_clip(path, self.frames)
        image = open_picture(path)
        return pad_to_square(image, tuple(self.processor.image_processor.image_mean)) if self.pad_square else image

    def _cut(self, encoded: Encoded) -> Example:
        """Tensors, cut to `max_length`; a picture must not be cut, because its pixels are not."""
        visual = {
            token: kind for name, kind in _TYPES.items() if (token := getattr(self.processor, name, None)) is not None
        }
        lost = sum(token in visual for token in encoded.input_ids[self.max_length :])
        if lost:
            total = sum(token in visual for token in encoded.input_ids)
            raise DataError(
                f"{lost} of its {total} visual tokens come after the first {self.max_length} tokens; raise "
                "model_max_length, or leave the row out"
            )
        ids, labels = (torch.tensor(values[: self.max_length], dtype=torch.long) for values in encoded)
        if self.tokenization != "original" and not (labels != IGNORED).any():
            raise DataError(f"nothing to learn within {self.max_length} tokens")
        example = {"input_ids": ids, "labels": labels}
        if self._has_types:
            example["mm_token_type_ids"] = torch.tensor([visual.get(token, 0) for token in ids.tolist()])
        return example

    @cached_property
    def _has_types(self) -> bool:
        """Whether the model wants the kind of every token."""
        return "mm_token_type_ids" in self.asking.encode("a", [])

    @cached_property
    def _code(self) -> str:
        """Whose rules the original tokenization follows."""
        return code_of(self.asking.config.model_type)

    @cached_property
    def _original_encoder(self) -> Any:
        tokenizer = self.processor.tokenizer
        if self._code == "qwen":
            return QwenEncoder(tokenizer)
        own = of_tokenizer(tokenizer, self.max_length)
        return OriginalEncoder(own, self.version or self.asking.conversation(), self._code)

    def _original(self, row: Row, media: Sequence[Medium]) -> Encoded:
        if self._code == "qwen":
            return self._original_qwen(row, media)
        found = self._original_encoder.encode(row.record)
        slots: list[tuple[int, ...]] = []
        for medium in media:  # a video stands for as many pictures as it has frames
            parts = FRAMES if medium.kind == VIDEO else 1
            size = len(medium.ids) // parts
            slots += [medium.ids[place * size : (place + 1) * size] for place in range(parts)]
        asked = found.input_ids.count(PICTURE)
        if asked > len(slots):
            raise DataError(f"{asked} pictures and frames are asked for, {len(slots)} are there")
        ids: list[int] = []
        labels: list[int] = []
        rest = iter(slots)
        # the collator cuts before the features come in
        for token, label in list(zip(found.input_ids, found.labels, strict=True))[: self.max_length]:
            slot = next(rest) if token == PICTURE else (token,)
            ids += slot
            labels += [IGNORED] * len(slot) if token == PICTURE else [label]
        return Encoded(ids, labels)

    def _original_qwen(self, row: Row, media: Sequence[Medium]) -> Encoded:
        pads = {IMAGE: self.processor.image_token_id, VIDEO: getattr(self.processor, "video_token_id", None)}
        counts = {kind: [m.ids.count(pads[kind]) for m in media if m.kind == kind] for kind in (IMAGE, VIDEO)}
        found = self._original_encoder.encode(row.record, counts[IMAGE], counts[VIDEO])
        for kind, pad in pads.items():
            if found.input_ids.count(pad) != sum(counts[kind]):
                raise DataError(f"{len(counts[kind])} files, but fewer {kind} placeholders in its questions")
        return Encoded(found.input_ids, found.labels)

    def _fed(self, row: Row, media: Sequence[Medium]) -> int:
        """How many of the media the prompt refers to; the original encodes the others and drops their features."""
        left = self._original_encoder.encode(row.record).input_ids[: self.max_length].count(PICTURE)
        for number, medium in enumerate(media):
            if left <= 0:
                return number
            left -= FRAMES if medium.kind == VIDEO else 1
        if left < 0:
            raise DataError("a video is asked for in part")
        return len(media)
