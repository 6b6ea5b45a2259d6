"""Progress of a run: a bar on a terminal, else a plain line every 30 seconds, both with failures."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS = 30.0


class Progress:
    """Counts questions.

    Args:
        total: questions to come.
        shown: False for all but the first of several processes.
        processes: number that share the questions: this one sees one part, and shows it times their number.
    """

    def __init__(self, total: int, shown: bool = True, processes: int = 1) -> None:
        self.total = total
        self.done = 0
        self.failed = 0
        self.label = ""
        self.processes = processes
        self.started = self.told = time.monotonic()
        self.lines = shown and not sys.stderr.isatty()
        self.bar = tqdm(total=total, unit="question", disable=not shown or self.lines, dynamic_ncols=True)

    def name(self, label: str) -> None:
        """The current step."""
        self.label = label
        self.bar.set_description(label, refresh=False)

    def advance(self, questions: int, failed: int = 0) -> None:
        """Some questions are done, `failed` of them without answer."""
        questions = min(questions * self.processes, self.total - self.done)
        self.done += questions
        self.failed += failed
        if failed:
            self.bar.set_postfix(failed=self.failed, refresh=False)
        self.bar.update(questions)
        if self.lines and time.monotonic() - self.told >= SECONDS:
            self.tell()

    def tell(self) -> None:
        """Write the plain line."""
        self.told = time.monotonic()
        spent = self.told - self.started
        left = f"{spent / self.done * (self.total - self.done):.0f} s" if self.done else "unknown time"
        logger.info(
            "%s: %d of %d questions, %d failed, %.0f s, %s to go",
            self.label,
            self.done,
            self.total,
            self.failed,
            spent,
            left,
        )

    def close(self) -> None:
        """The run is over."""
        if self.lines:
            self.tell()
        self.bar.close()
