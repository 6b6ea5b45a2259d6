"""Packages only; everything else is in pyproject.toml. `configs/` is installed as `duet.configs`."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages(
            include=["duet*", "visionzip*", "pyramiddrop*", "llava*", "videollava*", "qwen2_5_vl*", "qwen3_vl*"]
        ),
        "duet.configs",
        *(f"duet.configs.{name}" for name in find_namespace_packages("configs")),
    ],
    package_dir={"duet.configs": "configs"},
)
