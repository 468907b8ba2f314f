"""Which files the weights of a model are read from: those beside its configuration, whatever its files name."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.utils import cached_file, find_adapter_config_file, is_peft_available

INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def check_weight_files(model: str, **options: Any) -> None:
    """
    Checks that a model names no weights outside of its folder or repository, by absolute paths or `..`.

    Args:
        model (`str`): What `from_pretrained` is about to load: a folder, or a name of the Hub. A file that is missing
            or broken is left to it. Where an adapter is there, the base model that it names is checked too.
        **options: What `from_pretrained` was given.

    Raises:
        `ValueError`: An index of shards or the configuration names a file elsewhere.
    """
    _check_files(model, options)
    if is_peft_available():  # else Transformers looks for no adapter
        adapter = find_adapter_config_file(model, **_given(options))
        base = _read(Path(adapter)).get("base_model_name_or_path") if adapter else None
        if isinstance(base, str):
            _check_files(base, options)


def _check_files(model: str, options: dict[str, Any]) -> None:
    is_folder = os.path.isdir(model)
    for path in _in_folder(Path(model, options.get("subfolder") or "")) if is_folder else _on_hub(model, options):
        content = _read(path)
        shards = content.get("weight_map")
        for name in (content.get("transformers_weights"), *(shards.values() if isinstance(shards, dict) else ())):
            if isinstance(name, str) and ("/" in name or "\\" in name):
                raise ValueError(
                    f"{path.name} must name weights beside it, found: {name[:100]!r}. Save the model anew with "
                    "save_pretrained."
                )


def _in_folder(folder: Path) -> list[Path]:
    return [folder / "config.json", *sorted(folder.glob("*.index*.json"))]


def _on_hub(model: str, options: dict[str, Any]) -> Iterator[Path]:
    """Downloads the files that name weights, as Transformers is about to do."""
    variant = f".index.{options['variant']}" if options.get("variant") else ".index"
    names = ["config.json", *(name.replace(".index", variant) for name in INDICES)]
    while names:
        path = cached_file(
            model,
            names.pop(0),
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **_given(options),
        )
        if path is not None:
            yield Path(path)
            index = _read(Path(path)).get("transformers_weights")
            names += [index] if isinstance(index, str) and index.endswith(".json") else []


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in HUB_OPTIONS if options.get(name) is not None}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
