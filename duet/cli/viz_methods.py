"""`duet viz FILE "question" --methods all`: one sheet of what every method keeps for the same question."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.cli.compression import NUMBERS, SWITCHES, check_budget
from duet.cli.output import say
from duet.cli.question import Opened, Setup, open_question
from duet.cli.values import method_names
from duet.errors import UserError

if TYPE_CHECKING:
    from duet.inference import Answer
    from duet.report.fates import Fate
    from duet.report.method_sheet import Entry

ALL = "all"
#: Switches that every method has.
COMMON = ("positions",)


def draw_sheet(args: Namespace, output: Path) -> None:
    """Answer with one method after the other, draw them all, save.

    Raises:
        UserError: an unknown method, an option that is one method's own, or no method that can run here.
    """
    names = _names(args)
    opened = open_question(args)
    entries, fates, missing = [], [], []
    for name in names:
        try:
            entry, fate = _try(args, opened, name)
        except UserError as error:
            missing.append((name, str(error)))
            continue
        entries.append(entry)
        fates.append(fate)
    if len(entries) < 2:
        raise UserError(f"none of these methods can run here: {'; '.join(': '.join(pair) for pair in missing)}")
    # after the cheap checks: these load matplotlib
    from duet.report.method_sheet import draw_methods
    from duet.report.views import make_views

    regions = opened.question.regions
    views = make_views(opened.question.media, regions, [[one[unit] for one in fates] for unit in range(len(regions))])
    draw_methods(_heading(opened, entries), _question(args), views, entries, missing, _depth(opened)).savefig(output)
    for entry in entries:
        say(f"{entry.name}: {entry.answer}")
    for name, reason in missing:
        say(f"{name} cannot run here: {reason}")
    say(f"drawn in {output}")


def _names(args: Namespace) -> list[str]:
    """`none` for the answer with all tokens, then those that are asked for: by their stages, in the table's order."""
    from duet.method_table import METHODS, find_method, methods

    idle = [name for name in ("words", *NUMBERS) if getattr(args, name) is not None]
    idle += [name for name in SWITCHES if name not in COMMON and getattr(args, name) is not None]
    idle += ["option"] if args.option else []
    if idle:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise UserError(f"{options} with --methods: what one method needs another has not; give --average or --budget")
    check_budget(args, None)
    methods()  # also loads those of installed packages
    wanted = [name for name in method_names(args.methods) if name]
    if not wanted:
        raise UserError(f"--methods {args.methods!r} names no method")
    if ALL in wanted:
        wanted = [*METHODS, *(name for name in wanted if name != ALL)]
    found = {name: find_method(name).stages for name in dict.fromkeys(wanted) if name != "none"}
    return ["none", *sorted(found, key=lambda name: (len(found[name]), found[name]))]


def _try(args: Namespace, opened: Opened, name: str) -> tuple[Entry, list[Fate]]:
    """Attach, answer; what became of each unit."""
    from duet.inference import answer
    from duet.report.fates import fate
    from duet.report.kept import kept_patches

    setup = opened.attach(_for(args, name))
    given = answer(setup.model, setup.processor, setup.question, max_new_tokens=args.max_new_tokens, traced=True)
    assert given.trace is not None
    patches = [region.patches for region in setup.question.regions]
    kept = kept_patches(given.trace, patches)
    depth = _depth(opened)
    return _entry(setup, name, given), [fate(steps, count, depth) for steps, count in zip(kept, patches, strict=True)]


def _entry(setup: Setup, name: str, given: Answer) -> Entry:
    from duet.method_table import find_method
    from duet.report.method_sheet import Entry

    assert given.trace is not None
    counts = setup.counts(given.trace)
    return Entry(name, find_method(name).stages, counts.tokens, counts.boundaries, counts.average, given.text)


def _for(args: Namespace, name: str) -> Namespace:
    """The arguments for one of the methods: without a budget where it keeps all, CLIP's text tower where it reads."""
    from duet.method_table import find_method

    method = find_method(name)
    given: dict[str, Any] = {**vars(args), "method": name}
    if not method.stages:
        given |= {"budget": None, "average": None, **dict.fromkeys(COMMON)}
    needs = method.reducer.build().needs if method.reducer is not None else frozenset()
    if not needs & {"clip_text_embeds", "clip_image_embeds"}:
        given["companion"] = None
    return Namespace(**given)


def _heading(opened: Opened, entries: list[Entry]) -> str:
    """How many methods, and at what average: methods come as near to it as they can."""
    averages = [f"{average:.1f}" for average in sorted(entry.average for entry in entries[1:])]
    span = averages[0] if averages[0] == averages[-1] else f"{averages[0]} to {averages[-1]}"
    many = "1 method" if len(averages) == 1 else f"{len(averages)} methods"
    return f"{many} on {Path(opened.path).name} at {span} visual tokens per layer on average"


def _question(args: Namespace) -> str:
    return f"“{' '.join(args.question.split())}”"


def _depth(opened: Opened) -> int:
    config: Any = opened.model.config
    return config.get_text_config().num_hidden_layers
