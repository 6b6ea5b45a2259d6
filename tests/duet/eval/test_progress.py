"""Plain lines without a terminal, with failures counted."""

from __future__ import annotations

import logging

import pytest

from duet.eval import progress


def test_plain_lines_come_in_time_and_count_failures(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO, logger="duet"):
        shown = progress.Progress(10)
        shown.name("duet pope")
        shown.advance(2)
        assert not caplog.messages
        now[0] = 31.0
        shown.advance(3, failed=1)
    assert caplog.messages == ["duet pope: 5 of 10 questions, 1 failed, 31 s, 31 s to go"]


def test_a_run_that_stops_at_once_knows_no_time(caplog) -> None:
    with caplog.at_level(logging.INFO, logger="duet"):
        shown = progress.Progress(10)
        shown.lines = True
        shown.close()
    assert caplog.messages == [": 0 of 10 questions, 0 failed, 0 s, unknown time to go"]


def test_other_processes_say_nothing_and_their_share_is_counted(caplog) -> None:
    with caplog.at_level(logging.INFO, logger="duet"):
        silent = progress.Progress(10, shown=False, processes=2)
        silent.advance(5)
        silent.close()
    assert silent.done == 10
    assert not caplog.messages
