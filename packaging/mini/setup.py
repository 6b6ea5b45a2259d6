"""Installs `playground/mini` as `duet_mini`: `pip install ./packaging/mini`, from a checkout.

Three of its five models come with it: those of the grids `quickstart` and `elastic`.
"""

from setuptools import setup

MODELS = ("llava-mini", "llava-mini-duet", "llava-mini-elastic")

setup(
    packages=["duet_mini"],
    package_dir={"duet_mini": "../../playground/mini"},
    package_data={"duet_mini": [f"checkpoints/{name}/*" for name in MODELS]},
)
