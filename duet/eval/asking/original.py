"""Evaluation prompts with the token ids of the original code: the text before and after every picture on its own.

Published numbers of LLaVA and Video-LLaVA were made with these ids (`tokenizer_image_token`). They differ from the
processor's where a piece starts with a blank, and with tokenizers whose rules for blanks were converted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from duet.data.encode import process
from duet.data.original import FAMILY_CODES
from duet.data.original.tokenizer import NO_LIMIT, of_tokenizer
from duet.errors import UserError
from duet.interfaces import Asking
from duet.text.pieces import PICTURE
from duet.text.placeholders import IMAGE, VIDEO, cut


class PiecesApart:
    """A family's prompts whose texts are tokenised piece by piece; everything else is the family's.

    Args:
        asking: of LLaVA, LLaVA-NeXT or Video-LLaVA.

    Raises:
        UserError: another family, whose original code has no ids of its own.
    """

    def __init__(self, asking: Asking) -> None:
        if asking.config.model_type not in FAMILY_CODES:
            raise UserError(
                f"--tokenization original: prompts of {asking.config.model_type} are the processor's in its own code"
            )
        self.asking = asking
        self.tokenizer = of_tokenizer(asking.processor.tokenizer, NO_LIMIT)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.asking, name)

    def encode(self, text: str, media: Sequence[Any]) -> Mapping[str, Tensor]:
        """Processor output of one prompt, its token ids replaced."""
        inputs = dict(self.asking.encode(text, media))
        slots = iter(self._slots(text, inputs["input_ids"].reshape(-1).tolist(), media))
        ids: list[int] = []
        for token in self.tokenizer.apart(text.replace(VIDEO, IMAGE)):
            ids += next(slots) if token == PICTURE else (token,)
        inputs["input_ids"] = torch.tensor([ids])
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return inputs

    def _slots(self, text: str, ids: Sequence[int], media: Sequence[Any]) -> list[Sequence[int]]:
        """The tokens of every picture and video, in the order of the text."""
        kinds = [piece for piece in cut(text) if piece in (IMAGE, VIDEO)]
        names = (getattr(self.asking.processor, name, None) for name in ("image_token_id", "video_token_id"))
        visual = {name for name in names if name is not None}
        if len(kinds) == 1:
            return [[token for token in ids if token in visual]]
        given = {
            VIDEO: [m for m in media if hasattr(m, "frames")],
            IMAGE: [m for m in media if not hasattr(m, "frames")],
        }
        left = {kind: iter(each) for kind, each in given.items()}
        return [process(self.asking, kind, next(left[kind])).ids for kind in kinds]
