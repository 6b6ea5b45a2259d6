"""vLLM's CPU runner loads a model without looking whether it places its own tokens; the GPU runner looks."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.interfaces import supports_multimodal_pruning
from vllm.platforms import current_platform


def let_cpu_runner_ask() -> None:
    """Make the CPU runner decide as the GPU runner does, from the model and the settings. Elsewhere nothing changes."""
    if not current_platform.is_cpu():
        return
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    def asks(runner: Any) -> bool:
        settings, model = runner.model_config.multimodal_config, getattr(runner, "model", None)
        return settings is not None and settings.is_multimodal_pruning_enabled() and supports_multimodal_pruning(model)

    # the base class sets an attribute of this name to False
    CPUModelRunner.is_multimodal_pruning_enabled = property(asks, lambda runner, value: None)
