"""Selects the trained parameters by part or prefix, and lists them.

The parts of a model are `tower`, `projector` and `decoder` (the language model with its head); `newline` is
LLaVA-NeXT's single vector between rows of patches. Wherever a recipe takes a name here, it takes the prefix of
parameter names as well. A parameter belongs to the longest prefix that fits it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from duet.errors import UserError
from duet.families import find_family
from duet.train.ranks import size_of

DECODER = "decoder"
#: Prefixes in models of no known family (tests, other projects).
_ANY = {"tower": ("vision_tower",), "projector": ("multi_modal_projector",)}
_NEWLINE = {"newline": ("model.image_newline",)}


@dataclass(frozen=True)
class Parts:
    """The parts of a model.

    Attributes:
        prefixes: by part; parameters under none of them belong to the decoder.
    """

    prefixes: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of_model(model: nn.Module) -> Parts:
        """The parts of a model's family."""
        try:
            family = find_family(model)[1]
        except UserError:
            return Parts(_ANY)
        return Parts({"tower": family.tower, "projector": family.projector, **_NEWLINE})

    def part(self, name: str) -> str:
        """The part of a parameter, by its name in a bare or a wrapped model."""
        plain = plain_name(name)
        prefixes = [(len(prefix), part, prefix) for part, each in self.prefixes.items() for prefix in each]
        return max(((size, part) for size, part, prefix in prefixes if _under(plain, prefix)), default=(0, DECODER))[1]

    def holds(self, entry: str, name: str) -> bool:
        """Whether a parameter belongs to a part, or lies under a prefix."""
        if entry == DECODER or entry in self.prefixes:
            return self.part(name) == entry
        return _under(plain_name(name), entry)

    def first(self, entries: Sequence[str], name: str) -> str | None:
        """The entry that a parameter belongs to: the longest prefix before any part; None without one."""
        fits = [entry for entry in entries if self.holds(entry, name)]
        prefixes = [entry for entry in fits if entry != DECODER and entry not in self.prefixes]
        return max(prefixes, key=len) if prefixes else fits[0] if fits else None

    def check(self, entries: Sequence[str], names: Sequence[str], field: str) -> None:
        """Check that every entry holds a parameter.

        Raises:
            UserError: one does not; `field` begins the message.
        """
        for entry in entries:
            if not any(self.holds(entry, name) for name in names):
                tops = sorted({".".join(plain_name(name).split(".")[:2]) for name in names})
                has = [part for part in (*self.prefixes, DECODER) if any(self.part(name) == part for name in names)]
                raise UserError(
                    f"{field}: no parameter is under {entry!r}; the model has the parts {', '.join(has)} and the "
                    f"prefixes {', '.join(tops)}"
                )


def plain_name(name: str) -> str:
    """A parameter's name in the bare model: without what peft puts around it."""
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    return name.replace(".modules_to_save.default.", ".").replace(".original_module.", ".")


def freeze(model: nn.Module, fixed: Sequence[str] = (), projector_only: bool = False, train: Sequence[str] = ()) -> int:
    """Set `requires_grad` of all parameters and return how many numbers are trained.

    Args:
        model: bare, or with adapters, which are trained unless they lie in a fixed part.
        fixed: parts and prefixes that are not trained.
        projector_only: the same as `train=["projector"]`.
        train: parts and prefixes that are trained; all others are fixed. Empty: all of a bare model, the projector of
            one with adapters.

    Raises:
        UserError: an entry holds no parameter, nothing is left to train, or quantised weights would be trained.
    """
    parts, named = Parts.of_model(model), list(model.named_parameters())
    names = [name for name, _ in named]
    adapted = any(is_adapter(name) for name in names)
    wanted = ["projector"] if projector_only or (adapted and not train) else list(train)
    parts.check(fixed, names, "freeze")
    parts.check(wanted, names, "train")
    learned = 0
    for name, parameter in named:
        chosen = is_adapter(name) or not wanted or parts.first(wanted, name) is not None
        chosen = chosen and parts.first(fixed, name) is None
        if chosen and not parameter.is_floating_point():
            raise UserError(f"{plain_name(name)} is quantised and cannot be trained: add model.lora, or freeze it")
        parameter.requires_grad_(chosen)
        learned += size_of(parameter) if chosen else 0
    if learned == 0:
        raise UserError("freeze: nothing is left to train")
    return learned


def is_adapter(name: str) -> bool:
    """Whether a parameter is one that peft added: LoRA and its relatives, or a copy that it trains."""
    return ".lora_" in name or ".modules_to_save." in name


def learned_table(model: nn.Module, rates: Mapping[str, float] | None = None, rate: float | None = None) -> str:
    """What is trained: numbers of every part, and learning rates.

    Args:
        model: after `freeze`.
        rates: learning rates by part or prefix.
        rate: of all others.
    """
    parts, given = Parts.of_model(model), dict(rates or {})
    rows: dict[str, list[int]] = {}
    found: dict[str, set[float]] = {}
    for name, parameter in model.named_parameters():
        part = parts.part(name) + (" (adapter)" if is_adapter(name) else "")
        counts = rows.setdefault(part, [0, 0])
        size = size_of(parameter)
        counts[0] += size
        if parameter.requires_grad:
            counts[1] += size
            entry = parts.first(list(given), name)
            own = rate if entry is None else given[entry]
            found.setdefault(part, set()).update(() if own is None else (own,))
    rows["all"] = [sum(counts[column] for counts in rows.values()) for column in (0, 1)]
    lines = [f"{'part':<20}{'parameters':>16}{'trained':>16}{'share':>9}  rate"]
    for part, (size, learned) in rows.items():
        shown = ", ".join(f"{value:g}" for value in sorted(found.get(part, ())))
        lines.append(f"{part:<20}{size:>16,}{learned:>16,}{learned / max(size, 1):>9.2%}  {shown}".rstrip())
    return "\n".join(lines)


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")
