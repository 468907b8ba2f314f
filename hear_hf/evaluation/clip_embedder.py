"""Makes embeddings of clips or of windows of them: what one process, one of several, or a worker of Ray does."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa
import torch

from ..arguments import option
from ..data.unusable import MIN_SECONDS, UnusableClip, decode_usable, describe
from ..data.windows import windows_of
from .embeddings import EmbeddingModel

MAX_BATCH_SECONDS = 300  # that a model reads at once, padding included, unless a single clip is longer


@dataclass
class EmbeddingArguments:
    """Which model embeds, what of each clip, and how the work is shared."""

    model_name_or_path: str = option(help="Embed with this HEAR: a folder, or a repository of the Hub.")
    model_revision: str = option(default="main", help="Its branch, tag or commit on the Hub.")
    trust_remote_code: bool = option(default=False, help="Run the code that a repository comes with.")
    window_seconds: float | None = option(default=None, help="Embed windows of this length; by default whole clips.")
    hop_seconds: float | None = option(
        default=None, help="Seconds from one window's start to the next one's; by default windows do not overlap."
    )
    top_k: int = option(default=3, help="Also store this many of the likeliest labels, where the model has labels.")
    batch_size: int = option(default=16, help="Read so many clips or windows at once.")
    output_dir: str = option(default="runs/embeddings", help="The folder for the tables.")
    clips_per_file: int = option(
        default=1000, help="Clips in a table; what is interrupted loses the work on one table."
    )
    num_proc: int = option(default=1, help="Share the work among so many processes.")
    ray_workers: int | None = option(
        default=None, help="Share it among so many workers of a Ray cluster instead (the extra `ray`)."
    )

    def __post_init__(self):
        if self.hop_seconds is not None and self.window_seconds is None:
            raise ValueError("`hop_seconds` must come with `window_seconds`, found none. Give it too.")
        shortest = 2 * MIN_SECONDS
        for name in ("window_seconds", "hop_seconds"):
            value = getattr(self, name)
            if value is not None and not shortest <= value < np.inf:
                raise ValueError(f"`{name}` must be at least {shortest:.3f}, found: {value}.")
        for name in ("batch_size", "clips_per_file", "num_proc", "ray_workers"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, found: {getattr(self, name)}.")
        if self.top_k < 0:
            raise ValueError(f"`top_k` must be at least 0, found: {self.top_k}.")
        if self.ray_workers is not None and self.num_proc > 1:
            raise ValueError("`num_proc` must come without `ray_workers`. Give one of them.")


def table_schema(embedding_size: int, has_labels: bool) -> pa.Schema:
    """The columns of a table of embeddings; `start` and `end` in seconds."""
    embedding = pa.list_(pa.float16(), embedding_size)
    columns = [("clip", pa.int64()), ("path", pa.string()), ("start", pa.float64()), ("end", pa.float64())]
    labels = [("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))]
    return pa.schema([*columns, ("embedding", embedding), *(labels if has_labels else [])])


class _Window(NamedTuple):
    """Samples to embed, and where they lie."""

    clip: int
    start: int
    samples: np.ndarray


@lru_cache(maxsize=1)
def _load(owner: str, name: str, revision: str, trust_remote_code: bool) -> EmbeddingModel:
    """The model of this process, loaded once for each embedder and all its copies."""
    model = EmbeddingModel.from_pretrained(name, revision, trust_remote_code)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


class ClipEmbedder:
    """
    Makes rows of embeddings from rows of clips; in this process, in others, or as a class for Ray's `map_batches`.

    Args:
        args (`EmbeddingArguments`): The model, loaded once in each process, and what it reads of each clip.
    """

    def __init__(self, args: EmbeddingArguments):
        self.args, self.name = args, uuid4().hex

    @property
    def model(self) -> EmbeddingModel:
        args = self.args
        return _load(self.name, args.model_name_or_path, args.model_revision, args.trust_remote_code)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrives in another process, with its share of the threads."""
        self.__dict__.update(state)
        if self.args.num_proc > 1:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.args.num_proc))

    def metadata(self) -> dict[str, Any]:
        """What made the embeddings: the checkpoint, and how clips are read."""
        args, model = self.args, self.model
        return {
            "model": args.model_name_or_path,
            "revision": model.revision,
            "weights": model.digest(),
            "head": model.head_digest() if self.num_labels else None,
            "sampling_rate": model.sampling_rate,
            "embedding_size": model.clip_size,
            "window_seconds": args.window_seconds,
            "hop_seconds": args.hop_seconds or args.window_seconds,
            "top_k": self.num_labels,
        }

    @property
    def num_labels(self) -> int:
        return min(self.args.top_k, len(self.model.labels))

    def schema(self) -> pa.Schema:
        """The columns of a table; `start` and `end` in seconds."""
        return table_schema(self.model.clip_size, self.num_labels > 0)

    def __call__(self, clips: pa.Table) -> pa.Table:
        """
        Embeds clips.

        Args:
            clips (`pa.Table`): With the column `audio`, structs of `bytes` and `path`, and if they are a part of more
                clips with their positions, `clip`.

        Returns:
            `pa.Table`: The columns of `schema`, a row for each window, in the order of the clips; and `error`. A clip
            that cannot be used has one row, in which that says why and the embedding is null.
        """
        entries = [entry or {} for entry in clips.column("audio").to_pylist()]
        numbers = clips.column("clip").to_pylist() if "clip" in clips.column_names else range(len(entries))
        rows: list[list[dict[str, Any]]] = [[] for _ in entries]
        errors: list[str | None] = [None for _ in entries]
        waiting: list[_Window] = []
        for position, entry in enumerate(entries):
            try:
                for start, samples in self._windows(entry):
                    if waiting and self._is_full(waiting, len(samples)):
                        self._read(waiting, rows)
                        waiting = []
                    waiting.append(_Window(position, start, samples))
            except UnusableClip as error:
                errors[position] = describe(entry, f"clip {numbers[position]}", error)
        if waiting:
            self._read(waiting, rows)
        found: list[dict[str, Any]] = []
        for position, (number, entry) in enumerate(zip(numbers, entries, strict=True)):
            shared = {"clip": number, "path": entry.get("path") or f"clip {number}", "error": errors[position]}
            found += [shared] if errors[position] else [shared | row for row in rows[position]]
        return pa.Table.from_pylist(found, self.schema().append(pa.field("error", pa.string())))

    def _windows(self, entry: dict[str, Any]) -> Iterable[tuple[int, np.ndarray]]:
        args, rate = self.args, self.model.sampling_rate
        if args.window_seconds is None:
            return [(0, decode_usable(entry, MIN_SECONDS, rate))]
        hop = args.hop_seconds or args.window_seconds
        return windows_of(entry, rate, round(args.window_seconds * rate), round(hop * rate))

    def _is_full(self, waiting: list[_Window], num_samples: int) -> bool:
        longest = max(num_samples, *(len(window.samples) for window in waiting))
        is_long = (len(waiting) + 1) * longest > MAX_BATCH_SECONDS * self.model.sampling_rate
        return len(waiting) == self.args.batch_size or is_long

    def _read(self, windows: list[_Window], rows: list[list[dict[str, Any]]]) -> None:
        """Embeds windows, and appends a row of each to those of its clip."""
        model = self.model
        outputs: Any = model.read([window.samples for window in windows])
        embeddings = outputs.pooler_output.half().cpu().numpy()
        best = model.scores(outputs).topk(self.num_labels) if self.num_labels else None
        for i, window in enumerate(windows):
            end = (window.start + len(window.samples)) / model.sampling_rate
            row = {"start": window.start / model.sampling_rate, "end": end, "embedding": embeddings[i]}
            if best is not None:
                row["labels"] = [model.labels[index] for index in best.indices[i].tolist()]
                row["scores"] = best.values[i].tolist()
            rows[window.clip].append(row)
