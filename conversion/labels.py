"""The names of a classifier's labels."""

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
            f"{', '.join(map(str, sorted(id2label)))}."
        )
    label2id = {label: index for index, label in id2label.items()}
    if len(label2id) < num_labels or "" in label2id:
        raise ValueError("`id2label` must give each label a name of its own, found: an empty or a repeated one.")
    return {"id2label": id2label, "label2id": label2id}


def read_labels(path: str | Path) -> dict[int, str]:
    """Reads labels from JSON, {"0": "dog"} or a list, or from a text file with one label per line.

    Raises:
        `ValueError`: The file is neither.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
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
