"""Hooks of the documentation site.

The start page is README.md. Links that leave the folder of the documents, to source files and recorded results, become
links to the repository when the site is built with its address (`DUET_REPOSITORY`), else plain text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add README.md as the start page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=text.replace("(docs/", "(")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite links to files outside the documents."""
    folder = Path(page.file.src_uri).parent

    def rewritten(match: re.Match[str]) -> str:
        label, target = match.groups()
        path = target.split("#")[0]
        if not path or files.get_file_from_path(os.path.normpath(folder / path)):
            return match[0]
        home = ROOT if page.file.src_uri == "index.md" else ROOT / "docs" / folder
        inside = Path(os.path.relpath(home / path, ROOT))
        if not (ROOT / inside).exists():
            return match[0]
        address = os.environ.get("DUET_REPOSITORY")
        if address:
            return f"[{label}]({address}/blob/main/{inside.as_posix()})"
        return f"`{inside.as_posix()}`" if label == inside.as_posix() else f"{label} (`{inside.as_posix()}`)"

    return _LINK.sub(rewritten, markdown)
