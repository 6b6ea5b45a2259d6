"""Methods from outside: of installed packages, and of files given with `--plugin`."""

from __future__ import annotations

from functools import cache

from duet.errors import UserError


@cache
def load_entry_points() -> None:
    """Load methods of installed packages: entries of the group `duet.methods` are functions that call `register`."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="duet.methods"):
        try:
            entry.load()()
        except Exception as error:
            raise UserError(f"method {entry.name} of {entry.value} cannot be registered: {error}") from error


def load_plugin(path: str) -> None:
    """Run a file that registers methods.

    Raises:
        UserError: it does not exist, fails, or ends the program.
    """
    import runpy
    from pathlib import Path

    if not Path(path).is_file():
        raise UserError(f"--plugin {path}: no such file")
    try:
        runpy.run_path(path, run_name="duet_plugin")
    except KeyboardInterrupt:
        raise
    except UserError as error:
        raise UserError(f"--plugin {path}: {error}") from error
    except BaseException as error:  # a file that exits must not end the command as if all were well
        raise UserError(f"--plugin {path}: {type(error).__name__}: {error}") from error
