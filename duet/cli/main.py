"""The `duet` command. Each subcommand is a module of this package, imported when it is called:

`SUMMARY` (one line), `EXAMPLES` (shown under its help), `add_arguments(parser)` and `run(args) -> exit code`. The
modules load torch inside `run`, so help is fast.

Exit codes: 0 done, 2 a user error (one line on standard error; `--debug` shows the traceback),
others as documented in the help of a subcommand.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any, NoReturn

from duet.cli.output import ours_alone
from duet.errors import UserError
from duet.files import one_line
from duet.version import VERSION

#: Commands that read the words after them on their own: they take flags of other projects.
RAW = ("train",)
#: Module names in `duet.cli`, in the order of the help.
COMMANDS = (
    "ask",
    "viz",
    "serve",
    "demo",
    "budget",
    "schedule",
    "methods",
    "eval",
    "score",
    "judge",
    "sweep",
    "report",
    "table",
    "plot",
    "train",
    "data",
    "oracle",
    "export",
    "doctor",
)
EXAMPLES = """examples:
  duet ask photo.jpg "What is the man doing?" --model llava-hf/llava-1.5-7b-hf
  duet ask photo.jpg "How many boats are there?" --model llava-hf/llava-1.5-7b-hf --method visionzip --compare
  duet viz photo.jpg "What does the sign say?" --model llava-hf/llava-1.5-7b-hf -o kept.png
  duet budget show llava15_128
  duet doctor

See duet COMMAND --help for details and examples.
"""
OK, MISTAKE, INTERRUPTED = 0, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    words, raw, parser = prepared(list(sys.argv[1:] if argv is None else argv))
    # characters that the terminal cannot show must not stop the program
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    _check_values(words, parser)
    args = _parsed(words, parser)
    args.raw_words, args.parser = raw, parser
    if args.command is None:
        parser.print_help()
        return MISTAKE
    try:
        with ours_alone():
            for path in args.plugin:
                from duet.plugins import load_plugin

                load_plugin(path)
            return import_module(f"duet.cli.{args.command}").run(args)
    except UserError as error:
        if args.debug:
            raise
        return _mistake(" ".join(str(error).split()))
    except KeyboardInterrupt:
        if args.debug:
            raise
        sys.stderr.write("duet: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of the pipe has closed it; avoid an error at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (OSError, MemoryError) as error:
        # of the machine: disk full, folder removed, out of memory
        if args.debug:
            raise
        return _mistake(one_line(error))


def prepared(given: list[str]) -> tuple[list[str], list[str], argparse.ArgumentParser]:
    """A command line as its parser reads it: the parser's words, those that the command reads itself, the parser."""
    words, raw = _split_raw(given)
    words = [_with_dashes(word) for word in words]
    return words, raw, build_parser(next((word for word in words if word in COMMANDS), None))


def _split_raw(given: list[str]) -> tuple[list[str], list[str]]:
    """Words for the parser, and those after a command that reads its own (`RAW`); help stays with the parser."""
    name = next((word for word in given if word in COMMANDS), None)
    place = given.index(name) + 1 if name is not None else len(given)
    if name not in RAW or not given[place:] or given[place] in ("-h", "--help"):
        return given, []
    common, raw = [], []
    rest = iter(given[place:])
    for word in rest:
        if word == "--plugin":
            common += [word, next(rest, "")]
        elif word == "--debug" or word.startswith("--plugin="):
            common.append(word)
        else:
            raw.append(word)
    return [*given[:place], *(["-"] if raw else []), *common], raw


def _parsed(words: list[str], parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; argparse takes overrides in one piece only, so those after an option are added here."""
    args, loose = parser.parse_known_args(words)
    if loose and hasattr(args, "overrides") and all("=" in word and not word.startswith("-") for word in loose):
        args.overrides = [*args.overrides, *loose]
    elif loose:
        parser.error(f"unrecognized arguments: {' '.join(loose)}")
    return args


def _check_values(words: list[str], parser: argparse.ArgumentParser) -> None:
    """An empty value is an error, not the default or this folder; of `--x=--` argparse would make an empty list."""
    for before, word in pairwise(["", *words]):
        name, equals, value = word.partition("=")
        if word.startswith("--") and equals and value.strip() in ("", "--"):
            parser.error(f"{name} is empty; give a value, or leave the option out")
        if before.startswith("--") and not word.strip():
            parser.error(f"{before} is empty; give a value, or leave the option out")


def _mistake(message: str) -> int:
    sys.stderr.write(f"duet: error: {message}\n")
    return MISTAKE


class _Parser(argparse.ArgumentParser):
    """For every (sub)command: no abbreviated options, examples keep their line breaks, errors take one line.

    argparse would accept `--av` for `--average`, and print all options above an error.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"{self.prog}: error: {' '.join(message.split())}; {self.prog} --help says more\n")


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command; if a subcommand is given, only that one is imported."""
    parser = _Parser(prog="duet", description="Fewer visual tokens, same answers.", epilog=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"duet {VERSION}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name in COMMANDS:
        if chosen not in (None, name):
            commands.add_parser(name)
            continue
        module = import_module(f"duet.cli.{name}")
        summary = module.SUMMARY
        command = commands.add_parser(name, help=summary, description=summary, epilog=module.EXAMPLES)
        module.add_arguments(command)
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.add_argument(
            "--plugin",
            action="append",
            default=[],
            metavar="FILE.py",
            help="run this file first: it adds methods with duet.register (docs/methods.md); may be repeated",
        )
    return parser


def _with_dashes(word: str) -> str:
    """`--max_new_tokens=8` -> `--max-new-tokens=8`: both spellings are common."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


if __name__ == "__main__":
    sys.exit(main())
