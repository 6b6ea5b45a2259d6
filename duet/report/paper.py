"""The paper's Tables 1 to 15 as data: `configs/paper/table*.yaml`, one file per table, values as printed.

    read_table(1).rows[7]     # PaperRow(label="DUET-VLM (C)", method="duet_c", tokens=192, values=(..., 99.0))

`notes` say if a printed value contradicts others, or how it was made. The rule of the last column, `average`:
the mean over the benchmarks of value / value of the first row, in percent; an empty cell leaves its benchmark out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from duet.config import load_config
from duet.errors import UserError
from duet.shipped import configs

NUMBERS = range(1, 16)
AVERAGE, SPEEDUP, TIME_SAVED = "average", "speedup", "time_saved"
#: Column -> heading and decimals. Benchmarks are named as in `duet eval --tasks`.
HEADINGS: dict[str, tuple[str, int]] = {
    "pope": ("POPE", 1),
    "scienceqa": ("SQA-I", 1),
    "textvqa": ("VQA-T", 1),
    "mme": ("MME", 0),
    "gqa": ("GQA", 1),
    "seed": ("SEED-I", 1),
    "tgif": ("TGIF", 1),
    "msvd": ("MSVD", 1),
    "msrvtt": ("MSRVTT", 1),
    SPEEDUP: ("Speed-up", 2),
    TIME_SAVED: ("Training time saved %", 0),
    AVERAGE: ("Avg %", 1),
}


@dataclass(frozen=True)
class PaperRow:
    """A printed row.

    Attributes:
        label: the paper's name of the method.
        method: its name in `duet methods`.
        values: one per column of the table; None for an empty cell.
        tokens: stated average of visual tokens; None if it depends on the picture (Qwen2.5-VL's baseline).
        budget: name from `duet budget list`, or numbers, if not that of the backbone and `tokens`.
        tasks: benchmarks of its average, if they are not the table's.
    """

    label: str
    method: str
    values: tuple[float | None, ...]
    tokens: int | None = None
    budget: str = ""
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperNote:
    """A note on some cells: those of a `label`, of `tokens`, of a `column`."""

    text: str
    label: str | None = None
    tokens: int | None = None
    column: str | None = None

    def covers(self, row: PaperRow, column: str | None) -> bool:
        """Whether it is about this cell; `column=None` for notes on the whole row."""
        if self.label is None and self.tokens is None and self.column is None:
            return False
        return self.label in (None, row.label) and self.tokens in (None, row.tokens) and self.column == column


@dataclass(frozen=True)
class PaperTable:
    """A table.

    Attributes:
        number: in the paper.
        title: what it compares.
        backbone: name of its token counts, see `duet.budget.BACKBONES`.
        model: hub id of the model it was measured on; empty for Tables 12 to 15.
        trained: whether each row has its own model, trained with the row's method and budget.
        columns: benchmarks, `average`, `speedup` (over the first row), `time_saved` (training time, percent).
        tasks: benchmarks of `average`; default: those among `columns`.
        rows: the first one is the model with all tokens.
        budgets: instead of rows (Tables 12 to 15): names from `duet budget list`, with the printed counts.
        notes: on cells, rows, columns or all.
    """

    number: int
    title: str
    backbone: str
    model: str = ""
    trained: bool = False
    columns: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    rows: tuple[PaperRow, ...] = ()
    budgets: tuple[str, ...] = ()
    notes: tuple[PaperNote, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(_made(PaperRow, row) for row in self.rows))
        object.__setattr__(self, "notes", tuple(_made(PaperNote, note) for note in self.notes))
        derived = (AVERAGE, SPEEDUP, TIME_SAVED)
        object.__setattr__(self, "tasks", tuple(self.tasks or (name for name in self.columns if name not in derived)))
        unknown = [name for name in (*self.columns, *self.tasks) if name not in HEADINGS]
        if unknown:
            raise UserError(f"table {self.number}: unknown columns {', '.join(unknown)}")
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise UserError(f"table {self.number}: {row.label} has {len(row.values)} of {len(self.columns)} values")

    @property
    def baseline(self) -> PaperRow:
        """The model with all tokens."""
        return self.rows[0]

    def budget(self, row: PaperRow) -> str:
        """A row's budget for `--budget`: a name from `duet budget list`, or numbers."""
        return row.budget or f"{self.backbone}_{row.tokens}"

    def averaged(self, row: PaperRow) -> list[str]:
        """The benchmarks of a row's average: an empty cell leaves its benchmark out."""
        printed = self.published(row)
        return [task for task in row.tasks or self.tasks if printed.get(task, 0.0) is not None]

    def only(self, tokens: Sequence[int] = (), rows: Sequence[str] = ()) -> PaperTable:
        """The table with some of its rows, including the one with all tokens.

        Args:
            tokens: stated averages; empty for all.
            rows: methods, by their name in `duet methods` or in the table; empty for all.

        Raises:
            UserError: the table has no such row.
        """
        first, *others = self.rows or (None,)
        if first is None:
            raise UserError(f"table {self.number} lists budgets, not methods: it has no rows to choose from")
        for count in tokens:
            if count not in {row.tokens for row in others}:
                there = ", ".join(dict.fromkeys(str(row.tokens) for row in others))
                raise UserError(f"table {self.number} has no rows of {count} tokens; it has {there}")
        for name in rows:
            if not any(name in (row.method, row.label) for row in self.rows):
                there = ", ".join(dict.fromkeys(row.method for row in self.rows))
                raise UserError(f"table {self.number} has no row {name!r}; it has {there}")
        kept = [
            row
            for row in others
            if (not tokens or row.tokens in tokens) and (not rows or row.method in rows or row.label in rows)
        ]
        if not kept and set(rows) != {first.method}:
            raise UserError(
                f"table {self.number} has no row of {', '.join(rows)} with {', '.join(map(str, tokens))} tokens"
            )
        return replace(self, rows=(first, *kept))

    def published(self, row: PaperRow) -> dict[str, float | None]:
        """Printed value by column."""
        return dict(zip(self.columns, row.values, strict=True))


def read_table(number: int) -> PaperTable:
    """A table by its number in the paper.

    Raises:
        UserError: there is no such table.
    """
    if number not in NUMBERS:
        raise UserError(f"the paper has no table {number}; choose {NUMBERS[0]} to {NUMBERS[-1]}")
    return load_config(PaperTable, configs("paper") / f"table{number}.yaml")


def average(values: Mapping[str, float], baseline: Mapping[str, float], tasks: Sequence[str]) -> float | None:
    """Mean over `tasks` of value / baseline in percent; None without any task."""
    shares = [100 * values[task] / baseline[task] for task in tasks]
    return sum(shares) / len(shares) if shares else None


def _made(kind: type, value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    fields = dict(value)
    for name in ("values", "tasks"):
        if name in fields:
            fields[name] = tuple(fields[name])
    return kind(**fields)
