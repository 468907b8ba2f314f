"""A page of clips that were found, with a player for each: one HTML file that links to theirs and to nothing else."""

import os
import re
from html import escape
from pathlib import Path
from urllib.parse import quote

from .search import Groups, Hit

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 70rem; margin: 1rem auto; padding: 0 1rem; }
h2 { font-size: 1.1rem; overflow-wrap: anywhere; }
li { margin: 0.5rem 0; overflow-wrap: anywhere; }
audio { display: block; width: 100%; max-width: 30rem; }
"""


def write_page(title: str, groups: Groups, path: Path) -> None:
    """
    Writes the page.

    Args:
        title (`str`): Heads it.
        groups (`Groups`): Hits, with a heading for each group. Paths become relative to the page's folder, so that
            both may move together and no other folder is told; a path that leads to no file is named without a player.
        path (`Path`): The file to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = [
        f"<h2>{escape(heading)}</h2>\n<ol>\n" + "\n".join(_item(hit, path.parent) for hit in hits) + "\n</ol>"
        for heading, hits in groups
    ]
    content = "\n".join(sections) or "<p>Nothing was found.</p>"
    path.write_text(
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<h1>{escape(title)}</h1>\n{content}\n</body>\n</html>\n",
        encoding="utf-8",
    )


def _item(hit: Hit, folder: Path) -> str:
    path, player = _shown_path(hit.path, folder), ""
    text = f"{hit.similarity:.3f} {path}, {hit.start:.1f} to {hit.end:.1f} s"
    text += f": {', '.join(hit.labels)}" if hit.labels else ""
    if os.path.isfile(hit.path):
        address = quote(path)
        part = f"#t={hit.start:g},{hit.end:g}"
        player = f'<audio controls preload="none" src="./{address}{part}"></audio>'
    return f"<li>{escape(text)}{player}</li>"


def _shown_path(path: str, folder: Path) -> str:
    """The path from the page's folder; the name alone of what is no file here."""
    if not os.path.isfile(path):
        return re.split(r"[/\\]", path)[-1]
    return Path(os.path.relpath(os.path.abspath(path), folder.absolute())).as_posix()
