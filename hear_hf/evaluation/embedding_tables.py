"""Embeddings of clips, or of windows of them, in parquet tables that say which checkpoint made them.

A folder of tables is what `search.py` calls an index. What was interrupted goes on after the last complete table.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from tqdm.auto import tqdm

from ..data.clip_tables import PartialTable, digest_of, tables_of_one_run
from ..data.clips import MIN_CLIPS_READ
from ..data.unusable import MAX_NAMED, refuse_too_many, warn_of_skipped
from ..data.workers import map_in_order
from .clip_embedder import ClipEmbedder, EmbeddingArguments, table_schema

METADATA = "embeddings"  # the key of what made a table
UNUSABLE = "unusable"  # the key of the clips that could not be read
CLIPS = "clips"  # the key of a digest of the clips of a table
STATED: dict[str, Any] = {  # what a table says of itself at least
    "model": str,
    "weights": str,
    "embedding_size": int,
    "window_seconds": float | int | None,
    "hop_seconds": float | int | None,
}
TABLE_NAME = re.compile(r"embeddings-(\d{5,})-of-(\d{5,})\.parquet")
ROWS_AT_ONCE = 4096  # in memory and in a row group


class EmbeddingTable(PartialTable):
    """
    Writes a table of embeddings some thousand rows at a time.

    Args:
        path (`Path`): The file to write.
        schema (`pa.Schema`): Its columns, and in the metadata what made it.
    """

    def __init__(self, path: Path, schema: pa.Schema):
        super().__init__(path, path.with_suffix(".partial"), schema)
        self.unusable: list[str] = []
        self.waiting: list[pa.Table] = []

    def add(self, rows: pa.Table) -> list[str]:
        """Adds what a `ClipEmbedder` made, and returns the errors among it."""
        errors = [error for error in rows.column("error").to_pylist() if error]
        self.unusable += errors
        self.waiting.append(rows.filter(rows.column("error").is_null()).select(self.schema.names).cast(self.schema))
        if sum(map(len, self.waiting)) >= ROWS_AT_ONCE:
            self._flush()
        return errors

    def finish(self) -> None:
        self._flush()
        self.writer.add_key_value_metadata({UNUSABLE: json.dumps(self.unusable)})

    def _flush(self) -> None:
        if self.waiting:
            self.writer.write_table(pa.concat_tables(self.waiting))
            self.waiting = []


def embed(clips: Dataset, args: EmbeddingArguments, max_unusable_share: float) -> list[Path]:
    """
    Writes the tables that are not there yet.

    Args:
        clips (`Dataset`): With the column `audio`, undecoded.
        args (`EmbeddingArguments`): The model, what it reads, and where the tables go.
        max_unusable_share (`float`): The share of the clips that may be unusable; these are counted and named.

    Returns:
        `list[Path]`: All tables, in the clips' order.

    Raises:
        `ValueError`: Tables of another checkpoint or of other clips are in the way, another run is at work there, or
            too many clips are unusable.
    """
    embedder = ClipEmbedder(args)
    with tables_of_one_run(Path(args.output_dir), "embeddings", len(clips), args.clips_per_file) as places:
        _write_missing(clips, embedder, places, max_unusable_share)
        return list(places)


def _write_missing(
    clips: Dataset, embedder: ClipEmbedder, places: dict[Path, range], max_unusable_share: float
) -> None:
    args, metadata = embedder.args, embedder.metadata() | {"num_clips": len(clips)}
    tables: dict[Path, tuple[range, pa.Schema]] = {}
    num_read = num_unusable = 0
    for path, place in places.items():
        stated = {METADATA: json.dumps(metadata), CLIPS: digest_of(clips.select(place))}
        if _is_written(path, stated):
            num_read, num_unusable = num_read + len(place), num_unusable + len(unusable_in(path))
        else:
            tables[path] = place, embedder.schema().with_metadata(stated)
    if not tables:
        return
    results = _results(_inputs(clips, [place for place, _ in tables.values()], args.batch_size), embedder)
    with tqdm(total=len(clips), initial=num_read, desc="Embedding", unit="clip") as progress:
        for path, (place, schema) in tables.items():
            with EmbeddingTable(path, schema) as table:
                num_done = 0
                while num_done < len(place):
                    rows = next(results)
                    errors = table.add(rows)
                    done = rows.column("clip")[-1].as_py() + 1 - place.start
                    progress.update(done - num_done)
                    num_read, num_done = num_read + done - num_done, done
                    for error in errors:
                        num_unusable += 1
                        warn_of_skipped(error, num_unusable)
                    min_read = min(len(clips), MIN_CLIPS_READ)
                    refuse_too_many(num_unusable, num_read, max_unusable_share, table.unusable[:MAX_NAMED], min_read)


def _inputs(clips: Dataset, places: list[range], size: int) -> Iterator[pa.Table]:
    """Yields clips, some at a time, with their positions."""
    audio = clips.select_columns("audio").with_format("arrow")
    for place in places:
        for start in range(place.start, place.stop, size):
            stop = min(start + size, place.stop)
            yield audio[start:stop].append_column("clip", pa.array(range(start, stop), pa.int64()))


def _results(tables: Iterator[pa.Table], embedder: ClipEmbedder) -> Iterator[pa.Table]:
    """Yields the rows of each table of clips, in their order."""
    args = embedder.args
    if args.ray_workers is None:
        return map_in_order(embedder, tables, args.num_proc, start_method="spawn")
    try:
        import ray.data
    except ImportError as error:
        raise ImportError('`ray_workers` needs Ray, not installed here: pip install "hear_hf[ray]"') from error
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    workers = ray.data.ActorPoolStrategy(size=args.ray_workers)
    whole_blocks: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
    found = ray.data.from_arrow(list(tables)).map_batches(
        ClipEmbedder, fn_constructor_args=(args,), compute=workers, **whole_blocks
    )
    return iter(found.iter_batches(**whole_blocks))


def _is_written(path: Path, stated: dict[str, str]) -> bool:
    """Says whether a table is there; one of another checkpoint, or of other clips, is refused."""
    if not path.exists():
        return False
    found = {key: value for key, value in read_metadata(path).items() if key in stated}
    if found != stated:
        checkpoint_of({path: found.get(METADATA, "{}"), "this run": stated[METADATA]})
        raise ValueError(
            f"{path} must hold the same clips as before, found that some changed since. Give another --output_dir."
        )
    return True


def read_metadata(path: Path) -> dict[str, str]:
    """Reads what a parquet file says of itself, in text."""
    metadata = pq.read_metadata(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if key != b"ARROW:schema"}


def checkpoint_of(made: dict[Any, Any], keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    """
    What made several tables, or tables and an embedder: it must be the same for all.

    Args:
        made (`dict`): The metadata of each, as a dictionary or in JSON, by what to call it.
        keys (`tuple[str, ...]`, *optional*): What must be the same; everything by default.

    Raises:
        `ValueError`: They differ, and the message names both checkpoints with their revisions; or a table does not say
            what made it.
    """
    stated = {name: _stated(name, one) for name, one in made.items()}
    first, expected = next(iter(stated.items()))
    for name, found in stated.items():
        if any(found.get(key) != expected.get(key) for key in keys or (*expected, *found)):
            raise ValueError(
                f"Embeddings must be of one checkpoint, read in one way, found in {first}: {_shown(expected)}, and in "
                f"{name}: {_shown(found)}. Give the checkpoint that made the tables, or make them anew."
            )
    return expected


def _stated(name: Any, made: Any) -> dict[str, Any]:
    try:
        made = json.loads(made) if isinstance(made, str) else made
    except ValueError:
        made = None
    if not isinstance(made, dict) or not all(isinstance(made.get(key), kind) for key, kind in STATED.items()):
        raise ValueError(
            f"{name} must say which checkpoint made it and how, found: {str(made)[:200]}. Make it anew by embed.py."
        )
    return made


def check_columns(path: Path, embedding_size: int) -> None:
    """Raises `ValueError` where the columns of a table are not those that embed.py writes."""
    found = pq.read_schema(path)
    expected = table_schema(embedding_size, "labels" in found.names)
    wrong = [field for field in expected if field.name not in found.names or found.field(field.name) != field]
    if wrong:
        raise ValueError(
            f"{path} must have a column {wrong[0].name!r} of {wrong[0].type}, found: "
            f"{', '.join(found.names)[:200]}. Make it anew by embed.py."
        )


def _shown(made: dict[str, Any]) -> str:
    revision = made.get("revision") or "a local folder"
    window = made.get("window_seconds")
    read = "whole clips" if window is None else f"windows of {window:g} s every {made['hop_seconds']:g} s"
    weights = f"weights: {made.get('weights')}" + (f", head: {made['head']}" if made.get("head") else "")
    return f"{made.get('model')} (revision: {revision}, {weights}, {read})"


def unusable_in(path: Path) -> list[str]:
    """The clips that have no row in a table as they could not be read, with the reason."""
    return json.loads(read_metadata(path).get(UNUSABLE, "[]"))


def summary(paths: list[Path]) -> str:
    """Counts the rows of tables, and the clips that have none as they could not be read."""
    num_rows = sum(pq.read_metadata(path).num_rows for path in paths)
    num_unusable = sum(len(unusable_in(path)) for path in paths)
    skipped = (
        f" {num_unusable} clips could not be read; the tables' metadata name all of them." if num_unusable else ""
    )
    return f"{num_rows} embeddings are in {paths[0].parent}.{skipped}"
