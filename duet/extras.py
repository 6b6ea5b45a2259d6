"""Optional packages: a feature whose package is absent says what to install, before any work is done."""

from __future__ import annotations

from importlib.util import find_spec

from duet.errors import UserError


def need(feature: str, extra: str | None, *modules: str, error: type[UserError] = UserError) -> None:
    """Check that the packages of an extra are there.

    Args:
        feature: for the message: `duet viz`.
        extra: of the project, see pyproject.toml; None: the packages belong to none.
        modules: import names.
        error: class to raise.

    Raises:
        UserError: one is absent.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        names = " ".join(name.replace("_", "-") for name in missing)
        install = names if extra is None else f'"duet-vlm[{extra}]"'
        raise error(f"{feature} needs {', '.join(missing)}: pip install {install}")
