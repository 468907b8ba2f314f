"""Which files the weights of a model are read from: those beside its configuration, whatever its files name."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.utils import cached_file, is_peft_available

ADAPTER_CONFIG = "adapter_config.json"
MAX_RANK = 1024
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
        `ValueError`: An index of shards or the configuration names a file elsewhere, or a rank is absurd.
    """
    base = _check_files(model, options)
    if base is not None and is_peft_available():  # else Transformers looks for no adapter
        _check_files(base, options)


def _check_files(model: str, options: dict[str, Any]) -> str | None:
    """Checks the files of a model, and returns the base model that an adapter among them names."""
    base = None
    for path in _files(model, options):
        content = _read(path)
        if path.name == ADAPTER_CONFIG:
            check_ranks(content)
            named = content.get("base_model_name_or_path")
            base = named if isinstance(named, str) else base
        shards = content.get("weight_map")
        for name in (content.get("transformers_weights"), *(shards.values() if isinstance(shards, dict) else ())):
            if isinstance(name, str) and ("/" in name or "\\" in name):
                raise ValueError(
                    f"{path.name} must name weights beside it, found: {name[:100]!r}. Save the model anew with "
                    "save_pretrained."
                )
    return base


def check_ranks(adapter: dict[str, Any]) -> None:
    """
    Refuses an adapter whose matrices would fill the memory before its weights are read.

    Args:
        adapter (`dict`): The content of its `adapter_config.json`.

    Raises:
        `ValueError`: A rank is no number from 1 to `MAX_RANK`.
    """
    patterns = adapter.get("rank_pattern")
    for rank in (adapter.get("r", 1), *(patterns.values() if isinstance(patterns, dict) else ())):
        if not isinstance(rank, int) or not 1 <= rank <= MAX_RANK:
            raise ValueError(f"The rank `r` of an adapter must be from 1 to {MAX_RANK}, found: {str(rank)[:100]}.")


def _files(model: str, options: dict[str, Any]) -> Iterator[Path]:
    """The files that say what is loaded; those of the Hub are downloaded, as Transformers is about to do."""
    if os.path.isdir(model):
        folder = Path(model, options.get("subfolder") or "")
        yield from (folder / "config.json", *sorted(folder.glob("*.index*.json")), folder / ADAPTER_CONFIG)
    else:
        variant = f".index.{options['variant']}" if options.get("variant") else ".index"
        indices = [name.replace(".index", variant) for name in INDICES]
        yield from _on_hub(model, options, ["config.json", *indices, ADAPTER_CONFIG])
    adapter = options.get("adapter_kwargs") or {}
    if path := adapter.get("_adapter_model_path"):  # `model` is the base model that it names
        yield from [Path(path, ADAPTER_CONFIG)] if os.path.isdir(path) else _on_hub(path, adapter, [ADAPTER_CONFIG])


def _on_hub(model: str, options: dict[str, Any], names: list[str]) -> Iterator[Path]:
    given = {name: options[name] for name in HUB_OPTIONS if options.get(name) is not None}
    while names:
        path = cached_file(
            model,
            names.pop(0),
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **given,
        )
        if path is not None:
            yield Path(path)
            index = _read(Path(path)).get("transformers_weights")
            names += [index] if isinstance(index, str) and index.endswith(".json") else []


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
