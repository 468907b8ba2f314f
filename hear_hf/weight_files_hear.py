"""Which files the weights of a folder are read from: those beside its configuration, whatever its files name."""

import json
from pathlib import Path
from typing import Any


def check_weight_files(folder: Path) -> None:
    """
    Checks that a folder names no weights outside of it, by absolute paths or `..`.

    Args:
        folder (`Path`): What `from_pretrained` is about to load. A file that is missing or broken is left to it.

    Raises:
        `ValueError`: An index of shards or the configuration names a file elsewhere.
    """
    named = [("config.json", _read(folder / "config.json").get("transformers_weights"))]
    for path in sorted(folder.glob("*.index*.json")):
        shards = _read(path).get("weight_map")
        named += [(path.name, shard) for shard in (shards.values() if isinstance(shards, dict) else ())]
    for file, name in named:
        if isinstance(name, str) and ("/" in name or "\\" in name):
            raise ValueError(
                f"{file} must name weights beside it, found: {name[:100]!r}. Save the model anew with save_pretrained."
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
