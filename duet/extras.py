"""Optional packages: a feature whose package is absent says what to install, before any work is done."""

from __future__ import annotations

from importlib.util import find_spec

from duet.errors import UserError


def need(feature: str, extra: str, *modules: str) -> None:
    """Check that the packages of an extra are there.

    Args:
        feature: for the message: `duet viz`.
        extra: of the project, see pyproject.toml.
        modules: import names.

    Raises:
        UserError: one is absent.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise UserError(f'{feature} needs {", ".join(missing)}: pip install "duet-vlm[{extra}]"')
