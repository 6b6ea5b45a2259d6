"""Installs `playground/mini` with its models as `duet_mini`: `pip install ./packaging/mini`, from a checkout."""

from setuptools import setup

setup(
    packages=["duet_mini"],
    package_dir={"duet_mini": "../../playground/mini"},
    package_data={"duet_mini": ["checkpoints/*/*"]},
)
