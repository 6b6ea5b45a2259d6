"""`duet doctor`: versions, devices, attention kernels, name clashes. Exit code 1 if something is broken.

What has to be installed, and in which range, is read from the metadata of the installed project, not repeated here.
"""

from __future__ import annotations

import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import duet
from duet.cli.output import say, say_json
from duet.errors import UserError
from duet.shipped import default_model
from duet.version import VERSION

if TYPE_CHECKING:
    from packaging.requirements import Requirement

SUMMARY = "check this installation: versions, devices, attention kernels, name clashes"
EXAMPLES = """examples:
  duet doctor
  duet doctor --json

exit codes: 0 all is well (notes do not count), 1 something is broken
"""
PROJECT = "duet-vlm"
#: Import names of this project that others use, too. `duet` is also an asynchronous library on the index (Cirq needs
#: it); the rest are the aliases of packaging/aliases.
SHARED_NAMES = ("duet", "visionzip", "pyramiddrop", "llava", "videollava", "qwen2_5_vl")
OURS = {PROJECT, "duet-vlm-aliases"}
OK, NOTE, BROKEN = "ok", "note", "BROKEN"


@dataclass(frozen=True)
class Finding:
    """One line of the report: `state` is `ok`, `note` or `BROKEN`."""

    state: str
    subject: str
    text: str


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: Namespace) -> int:
    """Print the findings; returns the exit code."""
    findings = [*_versions(), *_imports(), *_names(project_root()), _small_model()]
    if args.json:
        say_json([asdict(finding) for finding in findings])
    else:
        width = max(len(finding.subject) for finding in findings)
        say("\n".join(f"{finding.state:<7} {finding.subject:<{width}}  {finding.text}" for finding in findings))
    return int(any(finding.state == BROKEN for finding in findings))


def project_root() -> Path:
    """The folder that the package `duet` was imported from."""
    return Path(duet.__file__).resolve().parents[1]


def _versions() -> Iterator[Finding]:
    yield Finding(OK, "duet", f"{VERSION} in {project_root()}")
    yield Finding(OK, "python", f"{platform.python_version()} on {platform.platform()}")
    try:
        wanted = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        yield Finding(NOTE, PROJECT, "runs from its folder, not installed: pip install -e . checks versions")
        return
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in wanted]
    yield from (check_requirement(each) for each in requirements if _applies(each, ""))
    for extra in sorted(metadata.metadata(PROJECT).get_all("Provides-Extra") or []):
        yield check_extra(extra, requirements)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def check_requirement(requirement: Requirement) -> Finding:
    """Whether a package is installed in the range that the project is tested with."""
    found = _version(requirement.name)
    asked = str(requirement.specifier)
    if found is None:
        return Finding(BROKEN, requirement.name, f'is missing: pip install "{requirement.name}{asked}"')
    if not requirement.specifier.contains(found, prereleases=True):
        return Finding(BROKEN, requirement.name, f"{found} is outside the tested range {asked}")
    return Finding(OK, requirement.name, f"{found}" + (f" (tested range {asked})" if asked else ""))


def check_extra(extra: str, requirements: list[Requirement]) -> Finding:
    """Installed packages of an optional extra."""
    found = {part.name: _version(part.name) for part in _parts(extra, requirements)}
    text = ", ".join(f"{name} {version or 'absent'}" for name, version in found.items())
    if all(found.values()):
        return Finding(OK, f"extra {extra}", text)
    return Finding(NOTE, f"extra {extra}", f'{text} (optional: pip install "{PROJECT}[{extra}]")')


def _parts(extra: str, requirements: list[Requirement]) -> Iterator[Requirement]:
    """Requirements of an extra beyond the project's own, including those of extras that it names."""
    for each in requirements:
        if not _applies(each, extra) or _applies(each, ""):
            continue
        if each.name == PROJECT:
            for other in sorted(each.extras):
                yield from _parts(other, requirements)
        else:
            yield each


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _imports() -> Iterator[Finding]:
    """Check that torch and transformers load; a wrong torchvision prevents it."""
    try:
        import torch
        from transformers import LlavaForConditionalGeneration, utils
    except Exception as error:  # any error of an installation
        beside = f"; torchvision {_version('torchvision')} must fit torch" if _version("torchvision") else ""
        yield Finding(BROKEN, "import", f"{type(error).__name__}: {str(error).splitlines()[0]}{beside}")
        return
    yield Finding(OK, "import", f"{LlavaForConditionalGeneration.__name__} loads")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        yield Finding(NOTE, "devices", f"cpu, {torch.get_num_threads()} threads; no accelerator")
    else:
        yield Finding(OK, "devices", f"{torch.accelerator.device_count()} x {_device_name(accelerator.type)}, cpu")
    flash = utils.is_flash_attn_2_available()
    absent = "" if flash else "; flash_attention_2 absent (not needed)"
    yield Finding(OK, "attention", "sdpa, eager" + (", flash_attention_2" if flash else "") + absent)


def _device_name(kind: str) -> str:
    import torch

    if kind != "cuda":
        return kind
    platform_name = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name(0)} ({platform_name}, {memory:.0f} GiB)"


def _names(root: Path) -> Iterator[Finding]:
    installed = metadata.packages_distributions()
    for name in SHARED_NAMES:
        others = sorted({other for other in installed.get(name, []) if other not in OURS})
        yield check_name(name, root, others)


def check_name(name: str, root: Path, others: list[str]) -> Finding:
    """Whether a package name imports this project.

    Args:
        name: of the package.
        root: folder that this project is imported from.
        others: other installed projects with a package of this name.
    """
    ours = (root / name / "__init__.py").exists()
    place = _place(name)
    from_here = place is not None and root in place.parents
    advice = f"uninstall {' '.join(others)}" if others else "remove it from PYTHONPATH"
    if not ours:
        text = "not used here" if place is None else f"not used here; {place} does not belong to this project"
        return Finding(OK, f"name {name}", text)
    if not from_here:
        return Finding(
            BROKEN,
            f"name {name}",
            f"imports {place or 'nothing'} instead of {root}: {advice}, or use a fresh environment",
        )
    if others and root == _site(others[0]):
        remedy = f"{advice} and reinstall {PROJECT}, or use a fresh environment"
        return Finding(BROKEN, f"name {name}", f"{' '.join(others)} writes into the same folder: {remedy}")
    if others:
        return Finding(NOTE, f"name {name}", f"imports this project; the one of {' '.join(others)} is hidden")
    return Finding(OK, f"name {name}", "leads here")


def _place(name: str) -> Path | None:
    spec = find_spec(name)
    if spec is None:
        return None
    origin = spec.origin or next(iter(spec.submodule_search_locations or []), None)
    return Path(origin).resolve() if origin else None


def _site(project: str) -> Path | None:
    """The folder of an installed project's packages."""
    return Path(str(metadata.distribution(project).locate_file(""))).resolve()


def _small_model() -> Finding:
    try:
        return Finding(OK, "small model", str(default_model()))
    except UserError as error:
        return Finding(NOTE, "small model", str(error))
