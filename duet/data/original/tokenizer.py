"""The language model's own tokenizer, as LLaVA's code loaded it: no tokens for pictures, `pad` is `<unk>`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from duet.checkpoints.files import CheckpointError, read_json
from duet.files import blame
from duet.text.pieces import pieces_apart
from duet.text.placeholders import IMAGE, VIDEO

#: What sentencepiece writes for a blank.
BLANK = "\u2581"
#: Tokens that converted checkpoints have in addition.
ADDED = (IMAGE, VIDEO, "<pad>")
#: Longest text if neither the flag nor the tokenizer says; files write 1e30 for "no limit".
LENGTH, NO_LIMIT = 2048, 10**8
_KEPT = 1 << 14


@dataclass(frozen=True, eq=False)
class OriginalTokenizer:
    """Text -> ids with the begin token.

    Attributes:
        backend: from `tokenizers`.
        begin: the begin token, in front of every text; None without.
        adds_begin: whether it is put there here; otherwise the backend does it.
        pad: the padding token: `<unk>`, so an unknown character counts as padding.
        legacy: sentencepiece's mode as the mask rules see it; None: another kind of tokenizer.
        slow: blanks as in the slow tokenizer that is not legacy: one in front of every text, none after `</s>`.
        max_length: of texts without pictures, begin token included.
    """

    backend: Tokenizer
    begin: int | None
    adds_begin: bool
    pad: int | None
    legacy: bool | None
    slow: bool
    max_length: int
    blank: int | None
    special: frozenset[int]
    memory: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def ids(self, text: str) -> list[int]:
        """The begin token, then the text's."""
        return list(self._remembered(text))

    def apart(self, text: str) -> list[int]:
        """Pieces between pictures tokenised on their own, a -200 for each picture."""
        return pieces_apart(text, self._remembered, self.begin)

    def _remembered(self, text: str) -> tuple[int, ...]:
        """System sentences and openings of turns come again and again."""
        found = self.memory.get(text)
        if found is None:
            found = self._tokenize(text)
            if len(self.memory) < _KEPT:
                self.memory[text] = found
        return found

    def _tokenize(self, text: str) -> tuple[int, ...]:
        if self.legacy is None:
            return tuple(self.backend.encode(text).ids)
        ids = self.backend.encode(f" {text}" if self.slow and text else text, add_special_tokens=False).ids
        if self.slow and len(ids) > 1 and ids[0] == self.blank and ids[1] in self.special:
            ids = ids[1:]
        return (self.begin, *ids) if self.adds_begin and self.begin is not None else tuple(ids)


def read_original_tokenizer(
    folder: Path, max_length: int | None = None, legacy: bool | None = None
) -> OriginalTokenizer:
    """From a checkpoint's folder, in either layout.

    Args:
        folder: of the checkpoint or its tokenizer.
        max_length: of texts without pictures; None: the tokenizer's own.
        legacy: for the mask rules only, as if the attribute were set on a loaded tokenizer.

    With `tokenizer.model`, blanks follow the mode that tokenizer_config.json names (`legacy`, true if it is missing),
    as in the slow tokenizer that the originals use. With `tokenizer.json` alone its own rules count, except that
    `"legacy": false` always means what it says: converted checkpoints have a blank after every special token.

    Raises:
        CheckpointError: no tokenizer, or an unreadable one.
    """
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    with blame(f"the tokenizer in {folder}", CheckpointError):
        if (folder / "tokenizer.json").exists():
            backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "tokenizer.model").exists():
            from transformers import LlamaTokenizer

            backend = LlamaTokenizer.from_pretrained(folder).backend_tokenizer
        else:
            raise CheckpointError(f"{folder} has neither tokenizer.json nor tokenizer.model")
        built = _build(backend, settings, (folder / "tokenizer.model").exists(), max_length)
        return built if legacy is None else replace(built, legacy=legacy)


def of_tokenizer(tokenizer: Any, max_length: int) -> OriginalTokenizer:
    """From the tokenizer of a loaded processor."""
    given = tokenizer.init_kwargs
    legacy = getattr(tokenizer, "legacy", given.get("legacy"))
    settings = {**given, "legacy": legacy, "bos_token": tokenizer.bos_token, "unk_token": tokenizer.unk_token}
    return _build(tokenizer.backend_tokenizer, settings, False, max_length)


def _build(
    backend: Tokenizer, settings: Mapping[str, Any], has_model: bool, max_length: int | None
) -> OriginalTokenizer:
    parts = json.loads(backend.to_str())
    parts["added_tokens"] = [token for token in parts["added_tokens"] if token["content"] not in ADDED]
    pieces = json.dumps(BLANK)[1:-1] in json.dumps([parts["normalizer"], parts["pre_tokenizer"]])
    parts["truncation"] = parts["padding"] = None
    own = Tokenizer.from_str(json.dumps(parts))
    legacy = settings.get("legacy") is not False if pieces else None
    if pieces and (has_model or not legacy):
        in_front = [normalizers.Prepend(BLANK)] if legacy else []
        own.normalizer = normalizers.Sequence([*in_front, normalizers.Replace(" ", BLANK)])
        own.pre_tokenizer = None
    begin = own.token_to_id(_text(settings.get("bos_token"), "<s>" if pieces else ""))
    limit = settings.get("model_max_length") or LENGTH
    return OriginalTokenizer(
        backend=own,
        begin=begin,
        adds_begin=pieces and settings.get("add_bos_token") is not False,
        pad=own.token_to_id(_text(settings.get("unk_token"), "<unk>" if pieces else "")),
        legacy=legacy,
        slow=legacy is False,
        max_length=max_length or (int(limit) if limit < NO_LIMIT else LENGTH),
        blank=own.token_to_id(BLANK),
        special=frozenset(token["id"] for token in parts["added_tokens"] if token["special"]),
    )


def _text(token: Any, default: str) -> str:
    """A token of tokenizer_config.json, which may be an object."""
    found = token.get("content") if isinstance(token, dict) else token
    return str(found) if found else default
