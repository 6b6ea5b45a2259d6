"""Where keys come from, and how they are compared."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest

from duet.errors import UserError
from duet.serve import keys
from duet.serve.errors import ApiError
from duet.serve.keys import VARIABLE, Keys, new_key, read_keys


@pytest.mark.parametrize("header", ["Bearer one", "bearer one", "Bearer two", "Bearer  one "])
def test_a_key_opens(header: str) -> None:
    Keys(["one", "two"]).check(header)


@pytest.mark.parametrize(
    "header",
    [None, "", "one", "Bearer", "Bearer ", "Bearer on", "Bearer onee", "Basic one", "Bearer one two", "Bearer \udcff"],
)
def test_anything_else_does_not(header: str | None) -> None:
    with pytest.raises(ApiError) as error:
        Keys(["one", "two"]).check(header)
    assert error.value.status == 401 and error.value.headers()["WWW-Authenticate"] == "Bearer"


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, all the way, whatever the key."""
    compared: list[tuple[int, int]] = []

    real = hmac.compare_digest

    def spy(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return real(first, second)

    monkeypatch.setattr(keys.hmac, "compare_digest", spy)
    Keys(["one", "a much longer one"]).check("Bearer one")
    with pytest.raises(ApiError):
        Keys(["one", "a much longer one"]).check("Bearer x")
    assert compared == [(32, 32)] * 4


def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n\n  two  \n")
    monkeypatch.setenv(VARIABLE, "other")
    assert read_keys(file) == ["one", "two"]
    assert read_keys(None) == ["other"]
    monkeypatch.delenv(VARIABLE)
    assert read_keys(None) == []


@pytest.mark.parametrize("content", ["", "\n \n", "with blank", "schlüssel", "a\x07b"])
def test_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="api-key-file") as error:
        read_keys(file)
    assert not content.strip() or content.strip() not in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_new_keys_are_new() -> None:
    assert new_key() != new_key() and len(new_key()) >= 32
