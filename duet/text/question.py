"""The question in a prompt, from token ids: its text, and the token ids of its words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from duet.text.keywords import question_words
from duet.text.salient import question_text

if TYPE_CHECKING:
    from torch import Tensor


class QuestionReader:
    """Reads the question from a prompt.

    Args:
        tokenizer: the one that made the prompts.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._read = question_text(tokenizer)

    def text(self, input_ids: Tensor, text: Tensor) -> str:
        """The question, without role names and special tokens.

        Args:
            input_ids: `[T]`, one prompt.
            text: `[T]` bool, the tokens after its last picture.
        """
        return " ".join(self._read(input_ids, text).split())

    def word_ids(self, input_ids: Tensor, text: Tensor) -> Tensor:
        """Token ids `[M]` of the words that name something, word by word (MMTok); if there are none, of all words."""
        words = question_words(self.text(input_ids, text))
        ids = [piece for word in words for piece in self.tokenizer(word, add_special_tokens=False)["input_ids"]]
        return torch.tensor(ids, dtype=torch.long)
