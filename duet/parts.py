"""One part of a method: a reducer or a pruner, named by file and class, with its construction."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from duet.errors import UserError, suggest
from duet.families import imported

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Part:
    """A reducer or a pruner.

    Attributes:
        make: `module:Class`, or the class itself.
        arguments: constructor arguments of this variant.
        stage: 1 or 2 for an external part, which is checked against the interface when built and used; else 0.
        owner: the method that an external part was registered for.
    """

    make: str | Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    stage: int = 0
    owner: str = ""

    @property
    def factory(self) -> Callable[..., Any]:
        """The class, imported."""
        return imported(self.make) if isinstance(self.make, str) else self.make

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.make.split(":")[1] if isinstance(self.make, str) else getattr(self.make, "__name__", "?")

    @property
    def file(self) -> str:
        """The module to read."""
        return self.make.split(":")[0] if isinstance(self.make, str) else getattr(self.make, "__module__", "?")

    def options(self) -> list[str]:
        """Names of its options."""
        made = self.factory
        return [entry.name for entry in fields(made) if entry.init] if is_dataclass(made) else []

    def build(self, **options: Any) -> Any:
        """Construct it; options that are None keep the variant's value.

        Raises:
            UserError: an option has the wrong type, the class refuses it, or an external part does not fit the
                interface.
        """
        chosen = {key: value for key, value in options.items() if value is not None}
        if not self.stage:
            return self._made(chosen)
        from duet.engine.outside import OutsidePruner, OutsideReducer, blamed

        title = f"method {self.owner} ({self.name})"
        with blamed(title):
            made = self._made(chosen)
        return OutsideReducer(made, title) if self.stage == 1 else OutsidePruner(made, title)

    def _made(self, options: dict[str, Any]) -> Any:
        from duet.config import convert

        try:
            return self.factory(**{**self.arguments, **convert(self.factory, options, self.name)})
        except (ValueError, TypeError) as error:
            raise error if isinstance(error, UserError) else UserError(f"{self.name}: {error}") from error


def split_variant(name: str) -> tuple[str, dict[str, Any]]:
    """`scope[alpha=2,score=column_mean]` -> `scope` and the options; numbers and booleans are converted.

    Raises:
        UserError: not of this form.
    """
    from duet.config import parse_value

    base, bracket, rest = name.partition("[")
    if not bracket:
        return name, {}
    options: dict[str, Any] = {}
    for entry in rest.removesuffix("]").split(","):
        key, equals, text = entry.partition("=")
        if not (rest.endswith("]") and equals and text and key.isidentifier()) or key in options:
            raise UserError(f"method {name!r}: write options as NAME[option=value,option=value], each once")
        options[key] = parse_value(text, f"method {name}: {key}")
    return base, options


def with_options(parts: tuple[Part, ...], options: dict[str, Any], method: str) -> tuple[Part, ...]:
    """Parts with these options as arguments, each option in every part that has it.

    Raises:
        UserError: an option that no part has, or an unusable value.
    """
    known = dict.fromkeys(name for part in parts for name in part.options())
    for name in options:
        if name not in known:
            raise UserError(f"unknown option {name!r} of method {method}; {suggest(name, known)}")
    found = []
    for part in parts:
        own = {name: value for name, value in options.items() if name in part.options()}
        part.build(**own)  # refuses a wrong value now, not after a model is loaded
        found.append(replace(part, arguments={**part.arguments, **own}))
    return tuple(found)
