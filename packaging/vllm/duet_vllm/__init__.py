"""vLLM plug-in: stage 1 of DUET-VLM's methods for LLaVA-1.5, LLaVA-NeXT and Qwen2.5-VL.

    DUET_METHOD=visionzip_c DUET_BUDGET=llava15_128 vllm serve llava-hf/llava-1.5-7b-hf

The prompt gets as many placeholders as stage 1 leaves, which follows from the picture's size; after the vision tower
the method chooses which tokens they hold. Nothing here needs `duet.engine` or a particular transformers version.
"""

from __future__ import annotations

import os

#: Architecture in a checkpoint's config.json -> our class, imported by vLLM when it is needed.
MODELS = {
    "LlavaForConditionalGeneration": "duet_vllm.llava:DuetLlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration": "duet_vllm.llava_next:DuetLlavaNextForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration": "duet_vllm.qwen:DuetQwen2_5_VLForConditionalGeneration",
}


def register() -> None:
    """Register our classes as `Duet...`, and with DUET_METHOD set under the stock names, too.

    vLLM calls this in each of its processes, some of them several times.
    """
    from vllm import ModelRegistry

    for stock, ours in MODELS.items():
        ModelRegistry.register_model(f"Duet{stock}", ours)
        if os.environ.get("DUET_METHOD"):
            ModelRegistry.register_model(stock, ours)
