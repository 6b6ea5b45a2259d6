"""How many requests fit beside the weights on a card: computed from the sizes of the caches, nothing is run.

    python benchmarks/room.py                          # the 7B and 8B shapes at their default budgets
    python benchmarks/room.py --cards 24,48 --text 300 --new-tokens 128

A request holds the keys and values of its prompt and of its answer, at 16 bit. A card gives 90 % of its memory to
weights and caches; activations, whose size depends on how prompts are batched, are what the rest is for. The formula is
`Budget.kv_bytes`; `tests/benchmarks/test_room.py` compares it with caches that were filled. Writes JSON and Markdown.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

# A script's own folder is on the path, the root of the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import RESULTS, counts
from benchmarks.families import FAMILIES, Asked
from benchmarks.shapes import SHAPES
from duet.budget import Backbone, Budget
from duet.errors import UserError
from duet.method_table import find_method

if TYPE_CHECKING:
    from collections.abc import Sequence

GIB = 1 << 30
SHARE = 0.9
BYTES = 2
REAL = ("llava15-7b", "llavanext-7b", "videollava-7b", "qwen2_5_vl-7b", "qwen3_vl-8b")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute, write, print the table; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        rows = [row for shape in options.shapes for row in shape_rows(shape, options)]
    except UserError as error:
        parser.error(str(error))
    shown = {name: value for name, value in vars(options).items() if name != "output"}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"options": shown, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    table = as_markdown(rows, options)
    options.output.with_suffix(".md").write_text(table, encoding="utf-8")
    sys.stdout.write(table)
    return 0


def shape_rows(name: str, options: Namespace) -> list[dict[str, Any]]:
    """The stock model and the method at every average of the shape.

    Raises:
        UserError: no such shape, or a card that does not hold the weights.
    """
    if name not in SHAPES:
        raise UserError(f"--shapes {name}: choose among {', '.join(SHAPES)}")
    shape = SHAPES[name]
    family = FAMILIES[shape.family]
    config = family.config(shape)
    with torch.device("meta"):
        model = getattr(transformers, family.model)(config)
    weights = BYTES * sum(value.numel() for value in model.parameters())
    # one picture has no values here, only sizes
    media = family.media(config, Asked(), torch.Generator().manual_seed(0))
    backbone = replace(Backbone.from_config(config).with_patches(media.patches, media.units), name="this shape")
    text = options.text + media.separators
    budgets = [(None, Budget())]
    schedule = find_method(options.method).schedule
    budgets += [(average, Budget.solve(average, backbone, schedule=schedule)) for average in shape.averages]
    rows, base = [], 0
    for average, budget in budgets:
        cache = request_bytes(backbone, budget, text, options.new_tokens)
        base = base or cache
        fits = {card: int((SHARE * card * GIB - weights) // cache) for card in options.cards}
        rows.append(
            {
                "shape": name,
                "name": "none" if average is None else f"{options.method} {average}",
                "weights_gib": weights / GIB,
                "cache_mib": cache / (1 << 20),
                "requests": {str(card): max(count, 0) for card, count in fits.items()},
                "more": base / cache,
            }
        )
    return rows


def request_bytes(backbone: Backbone, budget: Budget, text: int, new: int, size: int = BYTES) -> int:
    """Bytes of the keys and values of a prompt and of an answer of `new` tokens (the last one is not cached)."""
    return sum(budget.kv_bytes(backbone, text=text + new - 1, bytes_per_value=size))


def as_markdown(rows: Sequence[dict[str, Any]], options: Namespace) -> str:
    """The rows as a table."""
    cards = [str(card) for card in options.cards]
    lines = [
        "# Requests that fit on a card, computed",
        "",
        f"Prompts of {options.text} text tokens beside the picture or video, answers of {options.new_tokens}; weights "
        f"and caches at 16 bit in {SHARE:.0%} of the memory. Nothing was run.",
        "",
        f"| shape | configuration | weights, GiB | cache per request, MiB | {' | '.join(f'{c} GiB' for c in cards)} "
        "| times the stock model's |",
        "|---|---|---:|---:|" + "---:|" * (len(cards) + 1),
    ]
    for row in rows:
        fits = " | ".join(str(row["requests"][card]) for card in cards)
        lines.append(
            f"| {row['shape']} | {row['name']} | {row['weights_gib']:.1f} | {row['cache_mib']:.1f} | {fits} "
            f"| {row['more']:.1f}x |"
        )
    return "\n".join(lines) + "\n"


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=list(REAL), help=f"({','.join(REAL)})")
    parser.add_argument("--method", default="duet", help="a name of `duet methods` (%(default)s)")
    parser.add_argument("--cards", type=counts, default=[24, 80, 141, 256], help="GiB of memory (24,80,141,256)")
    parser.add_argument("--text", type=int, default=64, help="text tokens of a prompt (%(default)s)")
    parser.add_argument("--new-tokens", type=int, default=128, help="of an answer (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "room.json", help="JSON file (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
