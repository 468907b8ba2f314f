"""Where to get freely licensed sound: packages of Debian and files of git repositories, with licences and authors.

The list is `free_sounds.json`; docs/free-sounds.md shows it.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("free_sounds.json")


@dataclass(frozen=True)
class FreePackage:
    """What a package of Debian sounds like, whose its sounds are, and which of its files are also in ESC-50."""

    sounds: str
    licence: str
    credit: str
    in_esc50: tuple[str, ...] = ()


@dataclass(frozen=True)
class FreeFiles:
    """Files of a repository, as paths in it, that share licence and credit."""

    licence: str
    credit: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class FreeSet:
    """What a set of sounds holds, and its files by repository (`owner/name`) and commit."""

    sounds: str
    files: dict[tuple[str, str], tuple[FreeFiles, ...]]


def free_packages() -> dict[str, FreePackage]:
    """Packages of Debian that hold sounds, by name."""
    entries = _read()["packages"].items()
    return {name: FreePackage(**entry | {"in_esc50": tuple(entry.get("in_esc50", ()))}) for name, entry in entries}


def free_sets() -> dict[str, FreeSet]:
    """Sets of sounds in git repositories, by name."""
    return {name: _to_set(entry) for name, entry in _read()["sets"].items()}


def _to_set(entry: dict[str, Any]) -> FreeSet:
    files = {
        (repository["name"], repository["commit"]): tuple(
            FreeFiles(group["licence"], group["credit"], tuple(group["paths"])) for group in repository["files"]
        )
        for repository in entry["repositories"]
    }
    return FreeSet(entry["sounds"], files)


@cache
def _read() -> dict[str, Any]:
    return json.loads(LIST.read_text(encoding="utf-8"))
