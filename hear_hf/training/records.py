"""What a run was, stored beside its checkpoints, so that no other run resumes them or writes among them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub.utils import WeakFileLock
from transformers import TrainingArguments

RECORD = "run_record.json"
LOCK = ".in_use.lock"
TRAINING = ("learning_rate", "lr_scheduler_type", "optim", "uses_muon", "seed", "weight_decay")
FREE = {  # options that a resumed run may change, as they do not change what is learned
    "decoded_cache",
    "early_stopping_patience",
    "max_eval_samples",
    "max_unusable_share",
    "precompute_codes",
    "probe_file",
    "probe_test_file",
    "shuffle_buffer_size",
    "teacher_trust_remote_code",
    "trust_remote_code",
}
CONTENT = "content_of_clips"
SOURCES = ("dataset_name", "data_dir", "train_file")
MAX_NAMED = 5  # differences
MAX_SHOWN = 100  # letters of a value


def described(training_args: TrainingArguments, *others: Any) -> dict[str, Any]:
    """
    What decides the result of a run.

    Args:
        training_args (`TrainingArguments`): How it trains. How long, how often it saves and on what it runs is
            left out.
        *others: The other dataclasses of its options.
    """
    known = {field.name for field in fields(TrainingArguments)}
    names = [field.name for field in fields(training_args) if field.name not in known]
    values = {name: getattr(training_args, name, None) for name in (*TRAINING, *names)}
    for options in others:
        values |= {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in values.items() if name not in FREE}


def are_made_here(options: dict[str, Any]) -> bool:
    """Whether the clips of a run come from no source: made anew, they may differ by a bit on another machine."""
    sources = [options[name] for name in SOURCES if name in options]
    return bool(options.get("soundscapes")) or (bool(sources) and not any(sources))


def check_same_run(record: dict[str, Any], folder: Path, checkpoint: Path | None = None) -> None:
    """
    Checks that the model or the checkpoint in a folder is of the run that is about to replace or resume it.

    Args:
        record (`dict`): What the run is.
        folder (`Path`): Where the record of the other lies. An older run has none: then the labels alone are compared.
        checkpoint (`Path`, *optional*): What is resumed.

    Raises:
        `ValueError`: It is of another run; the message names the differences.
    """
    path, model = folder / RECORD, checkpoint or folder
    if not (checkpoint or (folder / "config.json").is_file()):
        return  # nothing is lost
    stored = _read(path) if path.is_file() else _labels(model)
    record = json.loads(_json(record))
    different = [name for name in record if name in stored and record[name] != stored[name]]
    if different:
        found = "; ".join(
            f"{name} was {str(stored[name])[:MAX_SHOWN]}, is now {str(record[name])[:MAX_SHOWN]}"
            for name in different[:MAX_NAMED]
        )
        changed = "The sounds or labels of the training clips changed since: bring them back to go on. "
        raise ValueError(
            f"A folder must hold the model and checkpoints of one run, found those of another in {folder}: {found}. "
            f"{changed if CONTENT in different else ''}Give another --output_dir, or delete that folder."
        )


def write_record(record: dict[str, Any], folder: Path) -> None:
    (folder / RECORD).write_text(_json(record), encoding="utf-8")


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; raises `ValueError` if one is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = WeakFileLock(folder / LOCK, timeout=1)
    try:
        lock.__enter__()
    except TimeoutError as error:
        raise ValueError(
            f"Each run must have a folder of its own, found another at work in {folder}. Give another "
            "--output_dir, or wait for its end."
        ) from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=2, sort_keys=True, default=str)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} must be as the run wrote it, found: {error}. Delete that folder.") from error


def _labels(checkpoint: Path) -> dict[str, Any]:
    """The labels of a saved model, where they are known."""
    path = checkpoint / "config.json"
    names = _read(path).get("id2label") if path.is_file() else None
    return {} if names is None else {"labels": [names[index] for index in sorted(names, key=int)]}
