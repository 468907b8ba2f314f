"""The names of a classifier's labels."""

import csv
import io
import json
from pathlib import Path


def label_values(id2label: dict[int, str] | None, num_labels: int | None) -> dict:
    """Makes the configuration's fields on labels, after checking that the names fit a checkpoint of so many."""
    if id2label is None:
        return {} if num_labels is None else {"num_labels": num_labels}
    if num_labels is None:
        raise ValueError("`id2label` must be left out, found names: this checkpoint has no labels.")
    if sorted(id2label) != list(range(num_labels)):
        raise ValueError(
            f"`id2label` must name labels 0 to {num_labels - 1}, {num_labels} in all, found {len(id2label)}: "
            f"{shortened(sorted(id2label))}."
        )
    label2id = {label: index for index, label in id2label.items()}
    if len(label2id) < num_labels or "" in label2id:
        raise ValueError("`id2label` must give each label a name of its own, found: an empty or a repeated one.")
    return {"id2label": id2label, "label2id": label2id}


def shortened(indices: list[int]) -> str:
    names = list(map(str, indices))
    return ", ".join(names if len(names) <= 20 else [*names[:10], "...", *names[-3:]])


def read_labels(path: str | Path) -> dict[int, str]:
    """Reads labels from JSON, {"0": "dog"} or a list, AudioSet's class_labels_indices.csv, or text of one per line.

    Raises:
        `ValueError`: The file is none of these.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return read_table(path, text)
        labels = json.loads(text)
    except json.JSONDecodeError as error:
        if path.suffix == ".json":
            raise ValueError(f"`{path}` must be JSON, found: {error}.") from error
        labels = None
    except UnicodeDecodeError as error:
        raise ValueError(f"`{path}` must be UTF-8 text, found: {error}.") from error
    if not isinstance(labels, (dict, list)):
        labels = text.strip("\n").split("\n")
    if isinstance(labels, list):
        labels = dict(enumerate(labels))
    if not all(str(index).isdecimal() and isinstance(label, str) for index, label in labels.items()):
        raise ValueError(f'`{path}` must name labels by their numbers, like {{"0": "dog"}}, or list the names.')
    return {int(index): label.strip() for index, label in labels.items()}


def read_table(path: Path, text: str) -> dict[int, str]:
    """Reads labels from a table with the columns `index` and `display_name`."""
    rows = list(csv.DictReader(io.StringIO(text)))
    try:
        return {int(row["index"]): row["display_name"].strip() for row in rows}
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"`{path}` must be a table with the columns `index` and `display_name`, as AudioSet's "
            f"class_labels_indices.csv, found columns: {', '.join(map(str, rows[0]))}."
        ) from error
