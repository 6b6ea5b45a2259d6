"""Settings of all tests: hypothesis without time limits, since the first call of torch is slow; a quiet DeepSpeed."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

if not torch.cuda.is_available():
    # where DeepSpeed is installed, it would print on import that it found no GPU
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

settings.register_profile("duet", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("duet")
