"""Rows of a LLaVA conversation file as training examples.

Example: `input_ids` [T], `labels` [T], `pixel_values` [number of pictures, 3, H, W] (absent in a text-only row).
For pictures in crops, `pixel_values` has a second dimension for them, and there is `image_sizes`.
`duet.data.collate` makes batches, padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from duet.data.encode import IGNORED, Template, encode
from duet.data.pictures import open_picture, pad_to_square
from duet.data.rows import DataError, Row
from duet.engine.compat import count_image_tokens

Example = dict[str, Tensor]


class ConversationDataset(Dataset[Example]):
    """Encodes rows on access.

    Args:
        rows: what `read_rows` returned.
        processor: the model's processor (image processor, fast tokenizer, patch geometry).
        template: turns -> segments, one of `duet.llava.prompts.TEMPLATES`.
        image_folder: of the rows' pictures.
        pad_square: pad pictures to squares first (LLaVA-1.5's `image_aspect_ratio: pad`).
        max_length: longer examples are cut at their end, as LLaVA does with `model_max_length`.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        processor: Any,
        template: Template,
        image_folder: str | Path = "",
        pad_square: bool = False,
        max_length: int = 2048,
    ) -> None:
        self.rows = list(rows)
        self.processor = processor
        self.template = template
        self.image_folder = Path(image_folder)
        self.pad_square = pad_square
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[index]
        images = [self._picture(self.image_folder / name) for name in row.images]
        sizes = [(image.height, image.width) for image in images]
        counts = count_image_tokens(self.processor, sizes)
        try:
            example = self._encode(row, counts)
        except DataError as error:
            raise DataError(f"row {index} (id {row.name!r}): {error}") from error
        if images:
            example.update(self.processor.image_processor(images, return_tensors="pt"))
        return example

    def _encode(self, row: Row, counts: Sequence[int]) -> Example:
        """`input_ids` and `labels`, cut to `max_length`; a picture must not be cut, because its pixels are not."""
        encoded = encode(self.template(row.turns), self.processor.tokenizer, counts)
        lost = encoded.input_ids[self.max_length :].count(self.processor.image_token_id)
        if lost:
            raise DataError(
                f"{lost} of its {sum(counts)} visual tokens come after the first {self.max_length} tokens; "
                "raise model_max_length, or leave the row out"
            )
        ids, labels = (torch.tensor(values[: self.max_length]) for values in encoded)
        if not (labels != IGNORED).any():
            raise DataError(f"nothing to learn within {self.max_length} tokens")
        return {"input_ids": ids, "labels": labels}

    def _picture(self, path: Path) -> Any:
        image = open_picture(path)
        return pad_to_square(image, tuple(self.processor.image_processor.image_mean)) if self.pad_square else image
