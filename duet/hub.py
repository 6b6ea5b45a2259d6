"""Sharing a compressed checkpoint: a folder, or a repository of the hub, that stock transformers opens compressed.

    checkpoint/
      config.json, model.safetensors, processor files     the stock checkpoint, unchanged
      duet_config.json                                    method, budget and switches (`duet.checkpoints.setting`)
      custom_generate/generate.py                         `from_pretrained(..., trust_remote_code=True)` compresses
      README.md                                           model card

`custom_generate/generate.py` only calls `generate` below, so the code that runs is that of the installed package.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData

from duet.budget import Backbone
from duet.checkpoints.setting import FILE, Setting, find_setting
from duet.engine.attach import detach
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.files import check_output_folder
from duet.registry import attach

TAGS = ["duet-vlm", "visual-token-compression"]
_GENERATE = '''"""Compressed generation: duet attaches what duet_config.json says for the time of the call."""


def generate(model, **kwargs):
    """`model.generate` with the method and budget of this repository; `duet_budget=` gives another budget."""
    from duet.hub import generate as compressed

    return compressed(model, **kwargs)
'''
_CARD = """---
{front}
---

# {title}

This checkpoint answers with fewer visual tokens: **{method}** keeps {average:.1f} of {full} per picture and decoder
layer on average{trained}. The weights are a stock `{architecture}`; without duet-vlm it opens like any other and uses
all tokens.

```bash
pip install duet-vlm
```

```python
import duet

model, processor = duet.load("{name}")  # attaches the method, budget and switches of duet_config.json
```

Stock transformers compresses, too, if it may run this repository's `custom_generate` (it calls the installed duet-vlm):

```python
from transformers import AutoModelForImageTextToText

model = AutoModelForImageTextToText.from_pretrained("{name}", trust_remote_code=True)
model.generate(**inputs)  # duet_budget=64 gives another budget
```

| | |
|---|---|
{rows}
"""


def save(model: Any, folder: str | Path, processor: Any = None, *, name: str | None = None) -> Path:
    """Save an attached model so that `duet.load` and stock transformers open it with its compression.

    Args:
        model: with compression attached; its weights are saved as a stock checkpoint.
        folder: created if missing.
        processor: saved beside it.
        name: how the model card calls it; the folder's name by default.

    Returns:
        The folder.

    Raises:
        UserError: nothing that could be stored is attached, or the folder cannot be written.
    """
    setting = _setting(model)
    folder = check_output_folder(folder)
    attached(model).model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    code = folder / "custom_generate"
    code.mkdir(exist_ok=True)
    (code / "generate.py").write_text(_GENERATE, encoding="utf-8")
    (code / "requirements.txt").write_text("duet-vlm\n", encoding="utf-8")
    card(attached(model).model, setting, name or folder.name).save(folder / "README.md")
    return folder


def push_to_hub(
    model: Any,
    repo_id: str,
    processor: Any = None,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a checkpoint with its visual token compression",
    token: str | None = None,
) -> str:
    """`save` to a repository of the hub, which is created if missing.

    Args:
        model, processor: see `save`.
        repo_id: `owner/name`.
        private, revision, commit_message, token: see `huggingface_hub.HfApi.upload_folder`.

    Returns:
        The address of the commit.

    Raises:
        UserError: nothing that could be stored is attached.
    """
    _setting(model)
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with TemporaryDirectory() as place:
        folder = save(model, Path(place, repo_id.split("/")[-1]), processor, name=repo_id)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
        )
    return str(commit)


def generate(model: Any, *, duet_budget: Any = None, duet_method: str | None = None, **kwargs: Any) -> Any:
    """`model.generate` under compression for the time of one call; what `custom_generate/generate.py` runs.

    Args:
        model: stock, with a `duet_config.json` beside its checkpoint; or attached already, which is left as it is.
        duet_budget, duet_method: instead of those in `duet_config.json`.
        kwargs: of the stock `generate`.

    Raises:
        UserError: a budget or method is given for a model that is attached, or it does not fit.
    """
    try:
        attached(model)
    except ValueError:
        _attach_stored(model, duet_method, duet_budget)
        try:
            return type(model).generate(model, **kwargs)
        finally:
            detach(model)
    if duet_budget is not None or duet_method is not None:
        raise UserError("this model has compression attached; duet.detach it first to give generate another one")
    return type(model).generate(model, **kwargs)


def _attach_stored(model: Any, method: str | None, budget: Any) -> None:
    source = getattr(model.config, "name_or_path", "")
    setting = find_setting(source)
    if setting is None:
        raise UserError(f"{source or 'this model'} has no {FILE} beside it; duet.attach(model, method=..., budget=...)")
    own = method in (None, setting.method)
    switches, companion = (setting.switches, setting.companion) if own else ({}, None)
    given = setting.budget if budget is None else budget
    attach(model, method or setting.method, given, companion=companion, **switches)


def card(model: Any, setting: Setting, name: str) -> ModelCard:
    """The model card, with the front matter that the hub reads."""
    base = str(getattr(model.config, "name_or_path", "") or "")
    on_hub = base.count("/") == 1 and not base.startswith((".", "/", "~"))
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=TAGS,
        base_model=base if on_hub else None,
        base_model_relation="finetune" if on_hub else None,
    )
    backbone = Backbone.from_config(model.config)
    budget = setting.budget
    values = {
        "method": f"`{setting.method}`",
        "budget": ", ".join(f"{key} {value}" for key, value in vars(budget).items() if value not in (None, (), 0)),
        **{f"switch `{key}`": str(value) for key, value in setting.switches.items()},
    }
    text = _CARD.format(
        front=data.to_yaml(),
        title=name.split("/")[-1],
        name=name,
        method=setting.method,
        average=budget.average(backbone),
        full=backbone.full,
        trained="; it was trained that way" if setting.trained else "",
        architecture=type(model).__name__,
        rows="\n".join(f"| {key} | {value} |" for key, value in values.items()),
    )
    return ModelCard(text)


def _setting(model: Any) -> Setting:
    try:
        setting = attached(model).setting
    except ValueError as error:
        raise UserError(f"{error}; model.save_pretrained saves a stock model") from error
    if setting is None:
        raise UserError("the attached method keeps all tokens; model.save_pretrained saves a stock model")
    return setting
