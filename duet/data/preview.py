"""What training makes of every row of a file: ids and labels, or why the row is left out.

A picture is one id, -200, however many tokens the model has for it; so no picture is opened, and a tokenizer is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duet.checkpoints.files import CheckpointError, resolve_folder
from duet.checkpoints.original import original_family, read_tokenizer, text_config
from duet.checkpoints.sanity import read_config
from duet.data.collate import IGNORED
from duet.data.encode import Encoded, Medium, encode, spread
from duet.data.files import read_records
from duet.data.original import code_of
from duet.data.original.encode import CODES, OriginalEncoder, OriginalRow
from duet.data.original.qwen import PADS, QwenEncoder
from duet.data.original.tokenizer import LENGTH, NO_LIMIT, read_original_tokenizer
from duet.data.rows import DataError, parse_row
from duet.errors import UserError
from duet.families import imported, model_types
from duet.files import blame, is_file, read_json
from duet.text.pieces import PICTURE
from duet.text.placeholders import IMAGE, VIDEO, place_media

#: Ours; that of the family's original code; that of a code by name.
TOKENIZATIONS = ("right", "original", *CODES, "qwen")
QWEN = "qwen"


@dataclass(frozen=True)
class Preview:
    """One row.

    Attributes:
        row: its id, or its number in the file if it has none.
        input_ids, labels: of length T; None if it is left out.
        left_out: why it is.
        warning: what the original prints if it learns nothing from the row.
    """

    row: Any
    input_ids: list[int] | None = None
    labels: list[int] | None = None
    left_out: str | None = None
    warning: str | None = None

    @property
    def learned(self) -> int:
        """Number of its labels."""
        return sum(label != IGNORED for label in self.labels or ())

    def as_json(self) -> dict[str, Any]:
        """Only what is set."""
        return {name: value for name, value in vars(self).items() if value is not None or name == "row"}


class Previewer:
    """Encodes records as training does.

    Args:
        source: folder or hub id of a model, or of its tokenizer.
        version: prompt format; None: the checkpoint's own (`v1` for a tokenizer of LLaMA's kind).
        tokenization: one of `TOKENIZATIONS`.
        max_length: longest example; None: the tokenizer's own.
        is_model: whether `source` has a config.json that says the family.

    Raises:
        UserError: an unknown family, version or tokenization.
        CheckpointError: no tokenizer.
    """

    def __init__(
        self,
        source: str | Path,
        version: str | None = None,
        tokenization: str = "right",
        max_length: int | None = None,
        is_model: bool = True,
    ) -> None:
        self.folder = resolve_folder(source, weights=False)
        self.version = version
        self.tokenization = tokenization
        self.max_length = max_length
        self.model_type = _family(self.folder) if is_model else None
        self.tokenizer = _tokenizer(self.folder)
        self.is_qwen = self.model_type in _qwen_types() or (self.model_type is None and _is_qwen(self.tokenizer))

    def rows(self, path: str | Path) -> list[Preview]:
        """All rows of a file, in order.

        Raises:
            DataError: an unreadable file.
        """
        records = list(read_records(path))
        write = self._right() if self.tokenization == "right" else self._original([record for _, record in records])
        return [self._row(write, record, f"{path}, row {place}", place) for place, record in records]

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text, `<image>` for a picture."""
        pieces, run = [], []
        for token in [*ids, PICTURE]:
            if token != PICTURE:
                run.append(token)
                continue
            pieces.append(self.tokenizer.decode(run, clean_up_tokenization_spaces=False) if run else "")
            run = []
        return IMAGE.join(pieces)

    def _row(self, write: Any, record: Any, where: str, place: int) -> Preview:
        given = record.get("id") if isinstance(record, dict) else None
        name = place if given is None else given
        try:
            found = write(record, where)
        except UserError as error:
            return Preview(name, left_out=str(error))
        return Preview(name, found.input_ids, found.labels, warning=getattr(found, "warning", None))

    def _config(self) -> Any:
        """The model's, as far as prompts depend on it."""
        from transformers import AutoConfig

        settings = read_config(self.folder)
        if original_family(settings) is not None:
            return _Config(str(self.model_type), text_config(settings, 0))
        with blame(self.folder, CheckpointError):
            return AutoConfig.from_pretrained(self.folder, trust_remote_code=False)

    @property
    def _limit(self) -> int:
        own = self.tokenizer.model_max_length
        return self.max_length or (own if own < NO_LIMIT else LENGTH)

    def _right(self) -> Any:
        """Our tokenization: record, place -> `Encoded`."""
        processor = _Words(self.tokenizer)
        if self.model_type is not None:
            asking = imported(model_types()[self.model_type].asking)(self._config(), processor)
        else:
            asking = imported(model_types()["qwen2_5_vl" if self.is_qwen else "video_llava"].asking)(None, processor)
        version = self.version or ("vicuna_v1" if self.model_type is None and not self.is_qwen else None)
        asking.segments([("a", None)], version=version)  # refuses an unknown format now, not at every row
        names = PADS.values() if self.is_qwen else (IMAGE, VIDEO)
        pads = {self.tokenizer.convert_tokens_to_ids(name) for name in names}

        def write(record: Any, where: str) -> Encoded:
            row = parse_row(record, where)
            for kind, file in row.media:
                if kind not in asking.marks:
                    raise DataError(
                        f"{where} (id {row.name!r}): the video {file}: this model takes pictures only, no videos"
                    )
            leading = row.leading or ((),) * len(row.turns)
            turns = [
                (place_media(question, front, asking.between) if front else question, answer)
                for front, (question, answer) in zip(leading, row.turns, strict=True)
            ]
            media = [Medium(kind, (), asking.marks[kind], {}) for kind in row.kinds]
            pieces = spread(asking.segments(turns, row.system, version), media, asking.marks)
            ids, labels = encode(pieces, self.tokenizer)
            ids = [PICTURE if token in pads else token for token in ids][: self._limit]
            labels = labels[: self._limit]
            if all(label == IGNORED for label in labels):
                raise DataError(f"{where} (id {row.name!r}): nothing to learn within {self._limit} tokens")
            return Encoded(ids, labels)

        return write

    def _original(self, records: Sequence[Any]) -> Any:
        """The original's: record, place -> `OriginalRow`."""
        code = self.tokenization
        if code == "original":
            has_videos = any(isinstance(record, dict) and record.get("video") for record in records)
            by_rows = QWEN if self.is_qwen else "duet_video" if has_videos else "llava"
            code = by_rows if self.model_type is None else code_of(self.model_type)
        if code == QWEN:
            return self._original_qwen()
        own = read_original_tokenizer(self.folder, self.max_length)
        encoder = OriginalEncoder(own, self.version or "v1", code)
        return lambda record, where: encoder.encode(record)

    def _original_qwen(self) -> Any:
        encoder = QwenEncoder(self.tokenizer)
        pads = {self.tokenizer.convert_tokens_to_ids(pad) for pad in PADS.values()}

        def write(record: Any, where: str) -> OriginalRow:
            if isinstance(record, dict) and ("grids" in record or "video_grids" in record):
                return encoder.encode(record, record.get("grids", ()), record.get("video_grids", ()))
            counts = [[1] * _count(record, *keys) for keys in (("image", "images"), ("video", "videos"))]
            found = encoder.encode(record, *counts)
            return OriginalRow([PICTURE if token in pads else token for token in found.input_ids], found.labels)

        return write


class _Words:
    """What a family's prompts need of a processor: its tokenizer and chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.chat_template = tokenizer.chat_template
        self.apply_chat_template = tokenizer.apply_chat_template


@dataclass(frozen=True)
class _Config:
    """Of a checkpoint in the original layout."""

    model_type: str
    text: Any

    def get_text_config(self) -> Any:
        return self.text


def _family(folder: Path) -> str:
    """The `model_type` of a stock or original config.json.

    Raises:
        UserError: another family.
    """
    settings = read_config(folder)
    found = original_family(settings) or settings.get("model_type")
    if found not in model_types():
        raise UserError(f"{folder} is of type {found!r}; known are {', '.join(model_types())} (or use --tokenizer)")
    return str(found)


def _tokenizer(folder: Path) -> Any:
    """As inference reads it: that of an original checkpoint, or of a language model, with placeholder tokens."""
    from transformers import AutoTokenizer

    settings, model = (
        read_json(folder / name) if is_file(folder / name) else {} for name in ("tokenizer_config.json", "config.json")
    )
    kind = str(settings.get("tokenizer_class", "LlamaTokenizer")).removesuffix("Fast")
    if kind == "LlamaTokenizer" and "vision_config" not in model:
        return read_tokenizer(folder, (IMAGE, VIDEO))
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _qwen_types() -> set[str]:
    return {name for name in model_types() if name.startswith("qwen")}


def _is_qwen(tokenizer: Any) -> bool:
    return all(pad in tokenizer.get_vocab() for pad in PADS.values())


def _count(record: Any, *keys: str) -> int:
    """Files that a record names."""
    given: Any = next((record[key] for key in keys if isinstance(record, dict) and record.get(key)), [])
    return 1 if isinstance(given, str) else len(given)
