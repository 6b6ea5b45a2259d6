"""Installs the alias packages of the repository's root: `pip install ./packaging/aliases`, from a checkout."""

from setuptools import setup

setup(
    packages=["visionzip", "pyramiddrop", "llava", "llava.model", "videollava", "videollava.model", "qwen2_5_vl"],
    package_dir={"": "../.."},
)
