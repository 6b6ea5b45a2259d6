"""`duet data fetch TASK`: downloads what can be downloaded, and says what has to be put where by hand."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from duet import shipped
from duet.cli.output import say
from duet.errors import UserError
from duet.files import check_output_folder

MINI = "mini"
#: Where `configs/eval` looks for the small world's questions.
MINI_DATA = Path("playground", "data", "mini", "eval")
#: Questions per benchmark of the small world, as in the quickstart.
COUNT = 180
DONE, BY_HAND = 0, 3


def run(args: Namespace) -> int:
    """Fetch every task; returns 3 where something has to be done by hand.

    Raises:
        UserError: unknown task, no network, a damaged download.
    """
    if args.count is not None and args.tasks != [MINI]:
        raise UserError(f"--count is for {MINI} alone; benchmarks are fetched whole")
    tasks = [task for task in args.tasks if task != MINI]
    if MINI in args.tasks:
        _make_mini(args)
    return _fetch(tasks, Path(args.data), args.dry_run) if tasks else DONE


def _make_mini(args: Namespace) -> None:
    """The small world's questions are made here, not downloaded; the same ones every time."""
    count = COUNT if args.count is None else args.count
    if args.dry_run:
        say(f"{MINI_DATA}: {count} questions per benchmark, made by the small world's generator")
        return
    generate, draw = shipped.small_module("generate"), shipped.small_module("draw")
    if MINI_DATA.exists():
        raise UserError(f"{MINI_DATA} exists; delete it to make it again")
    check_output_folder(MINI_DATA.parent)
    generate.write_eval(MINI_DATA, count, 0, draw.draw)
    say(f"{MINI_DATA}: {count} questions per benchmark")


def _fetch(tasks: list[str], root: Path, dry_run: bool) -> int:
    from duet.eval.files.fetch import fetch, missing, plan
    from duet.eval.files.layout import layout_of

    plans = {task: plan(task, root) for task in tasks}
    archives = root / "downloads"
    for task, steps in plans.items():
        say(f"{task} ({layout_of(task).license})")
        for step in steps:
            say(f"  {step}")
            if step.entry.url and not step.present and not dry_run:
                fetch(step, archives, _progress(step.target.name))
    by_hand = [step for steps in plans.values() for step in missing(steps)]
    if by_hand:
        say(f"{len(by_hand)} to be put in place by hand; then: duet data check {' '.join(tasks)} --data {root}")
    elif not dry_run:
        say(f"duet data check {' '.join(tasks)} --data {root} verifies them; {archives} may be deleted")
    return BY_HAND if by_hand else DONE


def _progress(name: str) -> Callable[[int, int | None], None]:
    from tqdm import tqdm

    bar = tqdm(desc=name, unit="B", unit_scale=True, file=sys.stderr)

    def show(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show
