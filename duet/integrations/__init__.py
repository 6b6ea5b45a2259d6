"""Other people's evaluation tools with our models: lmms-eval (an entry point) and VLMEvalKit (a launcher)."""

from __future__ import annotations

from typing import Any


def lmms_eval_models() -> Any:
    """The entry point of the group `lmms_eval.models`: `--model duet`, and with `--force_simple`.

    Returns:
        a `ModelManifest`, whose classes lmms-eval imports when they are asked for.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        "duet",
        chat_class_path="duet.integrations.lmms_eval.DuetChat",
        simple_class_path="duet.integrations.lmms_eval.DuetSimple",
    )
