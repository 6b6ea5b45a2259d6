"""Options for how questions are put, where that is not the model's own way."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from duet.files import is_file, read_text

if TYPE_CHECKING:
    from duet.prompt_style import PromptStyle


def add_style(parser: ArgumentParser) -> None:
    """Declare how questions are put, where that is not the model's own way."""
    parser.add_argument("--fps", type=float, metavar="R", help="frames per second of a video, instead of a number")
    parser.add_argument(
        "--template",
        metavar="TEXT",
        help="own prompt with {question} in it, or a file that holds one (default: the model's chat template)",
    )


def style_of(args: Namespace) -> PromptStyle:
    """The prompt style of the arguments.

    Raises:
        UserError: an unusable template or rate.
    """
    from duet.prompt_style import PromptStyle

    template = args.template
    if template is not None and is_file(template):
        template = read_text(template).removesuffix("\n")
    return PromptStyle(None if template is None else template.replace("\\n", "\n"), args.fps)
