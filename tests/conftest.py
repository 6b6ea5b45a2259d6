"""Settings of all tests: hypothesis without time limits, since the first call of torch is slow."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("duet", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("duet")
