"""What a result was made from: fingerprints that change with the content, settings that are compared."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from duet.errors import UserError
from duet.eval.running.provenance import check_settings, model_revision, surroundings


def test_a_folder_is_known_by_its_weights_and_the_hub_by_its_commit(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"a" * 3_000_000)
    first = model_revision(str(tmp_path), None)
    weights.write_bytes(b"a" * 2_999_999 + b"b")
    assert model_revision(str(tmp_path), None) != first
    weights.write_bytes(b"a" * 3_000_000)
    assert model_revision(str(tmp_path), None) == first
    assert model_revision("name/on-the-hub", SimpleNamespace(_commit_hash="abc")) == "abc"


def test_settings_are_compared_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    settings = {"method": "duet", "budget": {"layers": (4, 6)}, "limit": None}
    assert not check_settings(path, settings)
    path.write_text(json.dumps(settings))
    assert check_settings(path, settings)
    with pytest.raises(UserError, match=r"limit: None there, 8 now"):
        check_settings(path, {**settings, "limit": 8})
    with pytest.raises(UserError, match="dtype: None there, 'bfloat16' now"):
        check_settings(path, {**settings, "dtype": "bfloat16"})


def test_surroundings_name_versions_and_device() -> None:
    found = surroundings(torch.device("cpu"), processes=3)
    assert found["libraries"]["torch"] == torch.__version__
    assert found["device"].startswith("cpu")
    assert found["processes"] == 3
    assert json.dumps(found)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 5000])
def test_damaged_settings_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"run\.json.*--overwrite starts again"):
        check_settings(path, {"method": "duet"})
