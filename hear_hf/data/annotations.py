"""Files that say what is heard when: DCASE's tables, Audacity's label tracks and Raven's selection tables."""

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from datasets import ClassLabel, List, Value

from .sources import SEPARATORS

DCASE_COLUMNS = ("filename", "onset", "offset", "event_label")
RAVEN_START, RAVEN_END, RAVEN_FILE, RAVEN_OFFSET = "Begin Time (s)", "End Time (s)", "Begin File", "File Offset (s)"
RAVEN_LABELS = ("Annotation", "Label", "Species", "Common Name", "Tag", "Tags")
# Of the annotations of a recording beside it, after its name without the suffix.
COMPANION_SUFFIXES = (".txt", ".tsv", ".csv", ".Table.1.selections.txt", ".selections.txt")


class Event(NamedTuple):
    """A sound of a recording: from when to when, in seconds, and its label."""

    start: float
    end: float
    label: str


def events_feature(label_names: list[str] | None = None) -> List:
    """The type of a column of events, with labels by number, or by name where these are not known."""
    label = Value("string") if label_names is None else ClassLabel(names=label_names)
    return List({"start": Value("float64"), "end": Value("float64"), "label": label})


def companions(recording: Path) -> list[Path]:
    """The files that may hold the annotations of a recording beside it."""
    return [recording.with_name(recording.stem + suffix) for suffix in COMPANION_SUFFIXES]


def is_dcase(path: Path) -> bool:
    """Whether a table has DCASE's columns."""
    rows = _rows(path) if path.suffix.lower() in SEPARATORS else []
    return bool(rows) and set(DCASE_COLUMNS) <= set(rows[0])


def read_annotations(path: Path, label_column: str | None = None) -> dict[str, list[Event]]:
    """
    Reads a file of annotations of any of the three kinds, told by its first line.

    Args:
        path (`Path`): Text in UTF-8.
        label_column (`str`, *optional*): Raven's column of labels; the first of `RAVEN_LABELS` by default.

    Returns:
        `dict[str, list[Event]]`: The events by the recording that the file names; by "" where it names none. Of a
        recording that is named without an event, an empty list.

    Raises:
        `ValueError`: It is of none of these kinds, or a time is no number; the message names the line.
    """
    rows = _rows(path)
    header = rows[0] if rows else []
    if set(DCASE_COLUMNS) <= set(header):
        return _read_dcase(path, rows)
    if RAVEN_START in header:
        return _read_raven(path, rows, label_column)
    return {"": _read_audacity(path, rows)}


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8, found another encoding. Save it as UTF-8.") from error
    separator = SEPARATORS.get(path.suffix.lower(), "\t")
    try:  # line by line, as a quotation mark that nothing closes would swallow the lines that follow
        rows = [next(csv.reader([line], delimiter=separator)) for line in text.split("\n") if line]
    except csv.Error as error:
        raise ValueError(f"{path} must have cells of a readable length, found: {error}. Correct it.") from error
    return [row for row in rows if any(row)]


def _read_dcase(path: Path, rows: list[list[str]]) -> dict[str, list[Event]]:
    events: dict[str, list[Event]] = defaultdict(list)
    for line, row in _named(path, rows):
        found = events[row["filename"]]
        if row["onset"] or row["offset"] or row["event_label"]:  # else a recording without events
            start, end = (_seconds(row[name], path, line) for name in ("onset", "offset"))
            found.append(Event(start, end, row["event_label"].strip()))
    return dict(events)


def _read_audacity(path: Path, rows: list[list[str]]) -> list[Event]:
    events = []
    for line, row in enumerate(rows, 1):
        if row[0].startswith("\\"):  # the frequencies of the label above
            continue
        if len(row) < 3:
            raise ValueError(
                f"Line {line} of {path} must be `start<tab>end<tab>label`, as in Audacity's label tracks, or the file "
                f"must begin with the columns of DCASE ({', '.join(DCASE_COLUMNS)}) or of Raven ({RAVEN_START}, ...), "
                f"found: {row}. Correct the line, or export the labels again."
            )
        events.append(Event(_seconds(row[0], path, line), _seconds(row[1], path, line), row[2].strip()))
    return events


def _read_raven(path: Path, rows: list[list[str]], label_column: str | None) -> dict[str, list[Event]]:
    names = [label_column] if label_column else RAVEN_LABELS
    column = next((name for name in names if name in rows[0]), None)
    if column is None:
        raise ValueError(
            f"{path} must have a column of labels, one of {', '.join(names)}, found: {rows[0]}. Name it with "
            "--annotation_label_column."
        )
    events: dict[str, list[Event]] = defaultdict(list)
    for line, row in _named(path, rows):
        start, end = (_seconds(row[name], path, line) for name in (RAVEN_START, RAVEN_END))
        if row.get(RAVEN_OFFSET):  # of recordings in a row: when it begins in its own
            offset = _seconds(row[RAVEN_OFFSET], path, line)
            start, end = offset, offset + end - start
        event, found = Event(start, end, row[column].strip()), events[row.get(RAVEN_FILE, "")]
        if event not in found:  # Raven lists a selection once for each view of the sound
            found.append(event)
    return dict(events) or {"": []}


def _named(path: Path, rows: list[list[str]]):
    """The number of each line below the header, and its cells by their columns."""
    for line, row in enumerate(rows[1:], 2):
        if len(row) < len(rows[0]):
            row = row + [""] * (len(rows[0]) - len(row))
        yield line, dict(zip(rows[0], row, strict=False))


def _seconds(text: str, path: Path, line: int) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"Line {line} of {path} must have times in seconds, found: {text!r}. Correct it.")
    return seconds
