"""Packages only; everything else is in pyproject.toml. `configs/` is installed as `duet.configs`.

One top-level name is installed: `duet`. The names of the paper's README (`visionzip`, `llava`, ...) belong to other
projects, so they come as a distribution of their own, `packaging/aliases/`; in a checkout they are there anyway.
"""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages(include=["duet*"]),
        "duet.configs",
        *(f"duet.configs.{name}" for name in find_namespace_packages("configs")),
    ],
    package_dir={"duet.configs": "configs"},
)
