"""Search in tables of embeddings: what sounds alike, what is there twice, and which clips to label first.

Clips are compared by the cosine of their embeddings.
"""

import csv
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans

from ..arguments import option
from ..data.sources import find_audio, read_tables
from .clip_embedder import ClipEmbedder, EmbeddingArguments
from .embedding_tables import METADATA, TABLE_NAME, check_columns, checkpoint_of, read_metadata

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 2**13  # of a comparison


@dataclass
class SearchArguments:
    """What to search for, with which model, and where to show it."""

    like: list[str] | None = option(
        default=None, help="Find what sounds like these examples: audio files, folders and patterns."
    )
    duplicates: bool = option(default=False, help="Find clips that are there more than once, if perhaps changed.")
    min_similarity: float = option(default=0.98, help="Take clips for the same from this cosine on.")
    num_clusters: int | None = option(
        default=None, help="Divide the clips into so many clusters, and show one of each: clips to label first."
    )
    top_k: int = option(default=10, help="Show so many of the nearest.")
    model_name_or_path: str | None = option(
        default=None, help="Read the examples with this checkpoint; by default the one that made the tables."
    )
    model_revision: str | None = option(default=None, help="Its branch, tag or commit on the Hub.")
    trust_remote_code: bool = option(default=False, help="Run the code that a repository comes with.")
    faiss_factory: str = option(
        default="L2norm,Flat",
        help="Search by this FAISS index, where `faiss` is installed; the default is exact.",
    )
    seed: int = option(default=0, help="Seed of the clusters.")
    page: Path | None = option(default=None, help="Write the hits with players to this HTML file.")
    output_file: Path | None = option(default=None, help="Write the hits to this CSV file.")

    def __post_init__(self):
        wanted = [name for name in ("like", "duplicates", "num_clusters") if getattr(self, name)]
        if len(wanted) != 1:
            raise ValueError(
                f"There must be one thing to search for, `like`, `duplicates` or `num_clusters`, found: {wanted}."
            )
        if self.top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, found: {self.top_k}.")
        if not 0 < self.min_similarity <= 1:
            raise ValueError(f"`min_similarity` must be above 0 and at most 1, found: {self.min_similarity}.")


class Hit(NamedTuple):
    """A clip, or a window of one in seconds; its cosine with what was asked for, and its likeliest labels."""

    path: str
    start: float
    end: float
    similarity: float
    labels: list[str]


Groups = list[tuple[str, list[Hit]]]  # hits that belong together, with a heading


class EmbeddingIndex:
    """
    Tables of embeddings of one checkpoint.

    Args:
        rows (`Dataset`): Their rows.
        metadata (`dict`): What made them.
        faiss_factory (`str`, *optional*, defaults to `"L2norm,Flat"`): The FAISS index, where `faiss` is installed.
    """

    def __init__(self, rows: Dataset, metadata: dict[str, Any], faiss_factory: str = "L2norm,Flat"):
        self.rows, self.metadata, self.faiss_factory = rows, metadata, faiss_factory

    @classmethod
    def load(cls, folder: str | Path, faiss_factory: str = "L2norm,Flat") -> "EmbeddingIndex":
        """
        Opens the tables of a folder, which stay on disk. A warning says so if some of them are missing.

        Raises:
            `ValueError`: There are none, they are not of one checkpoint and one way to read clips, or not embed.py's.
        """
        paths = sorted(Path(folder).glob("*.parquet"))
        found = {path: read_metadata(path).get(METADATA) for path in paths}
        if not paths or None in found.values():
            partial = next((f"{path.name}, of an interrupted run" for path in Path(folder).glob("*.partial")), "none")
            wrong = next((path.name for path, stated in found.items() if stated is None), partial)
            raise ValueError(f"{folder} must hold the tables of embed.py, found: {wrong}. Run it, perhaps again.")
        metadata = checkpoint_of(found)
        names = [match for path in paths if (match := TABLE_NAME.fullmatch(path.name))]
        num_expected = max((int(name[2]) for name in names), default=len(paths))
        if len(paths) < num_expected:
            logger.warning(
                f"{folder} holds {len(paths)} of {num_expected} tables: embed.py was interrupted. What there is, is "
                "searched; the same command given again makes the others."
            )
        filled = [path for path in paths if pq.read_metadata(path).num_rows]
        if not filled:
            raise ValueError(f"{folder} must hold embeddings, found none: no clip could be read.")
        for path in filled:
            check_columns(path, metadata["embedding_size"])
        ((rows, _),) = read_tables(filled)
        return cls(rows, metadata, faiss_factory)

    def __len__(self) -> int:
        return len(self.rows)

    def vectors(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Returns the embeddings of some rows or of all, of length 1 and float32: `(num_rows, embedding_size)`."""
        column = self.rows.data.column("embedding")[start:stop].combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False)
        if column.null_count or not np.isfinite(values).all():
            raise ValueError("Embeddings must be finite, found NaN, infinity or none. Make them anew by embed.py.")
        return unit(values.reshape(-1, self.metadata["embedding_size"]))

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(self), ROWS_AT_ONCE):
            yield start, self.vectors(start, start + ROWS_AT_ONCE)

    def nearest(self, queries: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Finds the rows nearest to each query, through FAISS where it is installed and else one by one.

        Args:
            queries (`np.ndarray` of shape `(num_queries, embedding_size)`): Embeddings.
            top_k (`int`): How many rows to find.

        Returns:
            Cosines and numbers of the rows, each `(num_queries, min(top_k, len(self)))`, best first.
        """
        queries, top_k = unit(queries), min(top_k, len(self))
        if find_spec("faiss"):
            return self._nearest_by_faiss(queries, top_k)
        scores, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), int)
        for start, vectors in self._blocks():
            scores = np.concatenate([scores, queries @ vectors.T], axis=1)
            rows = np.concatenate([rows, np.tile(np.arange(start, start + len(vectors)), (len(queries), 1))], axis=1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
            scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
        return scores, rows

    def _nearest_by_faiss(self, queries: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        if "embedding" not in self.rows.list_indexes():
            import faiss

            self.rows.add_faiss_index(
                "embedding",
                string_factory=self.faiss_factory,
                metric_type=faiss.METRIC_INNER_PRODUCT,
                train_size=len(self),
            )
        scores, rows = self.rows.search_batch("embedding", queries, top_k)
        return np.asarray(scores), np.asarray(rows)

    def like(self, examples: np.ndarray, top_k: int, without: set[str]) -> list[Hit]:
        """
        Finds the rows that are nearest to any of some examples.

        Args:
            examples (`np.ndarray` of shape `(num_examples, embedding_size)`): Embeddings.
            top_k (`int`): How many rows to find.
            without (`set[str]`): Paths to leave out: those of the examples.
        """
        own = np.isin(self.rows.data.column("path").to_numpy(), list(without))
        found: dict[int, float] = {}
        for scores, rows in zip(*self.nearest(examples, top_k + int(own.sum())), strict=True):
            for score, row in zip(scores.tolist(), rows.tolist(), strict=True):
                if row >= 0 and not own[row]:  # -1: an approximate index found no more
                    found[row] = max(score, found.get(row, -1.0))
        best = sorted(found, key=lambda row: (-found[row], row))[:top_k]
        return [self.hit(row, found[row]) for row in best]

    def duplicates(self, min_similarity: float) -> Groups:
        """Groups clips of other files whose cosine is at least so much; a hit's is the largest within its group."""
        clips = self.rows.data.column("clip").to_numpy()
        pairs: list[tuple[int, int, float]] = []
        for first, vectors in self._blocks():
            for second, others in self._blocks():
                if second < first:
                    continue
                cosines = vectors @ others.T
                for i, j in np.argwhere(cosines >= min_similarity).tolist():
                    if first + i < second + j and clips[first + i] != clips[second + j]:
                        pairs.append((first + i, second + j, float(cosines[i, j])))
        best: dict[int, float] = {}
        for *rows, cosine in pairs:
            for row in rows:
                best[row] = max(cosine, best.get(row, -1.0))
        groups: dict[int, list[int]] = {}
        links = coo_array(([True] * len(pairs), ([i for i, *_ in pairs], [j for _, j, _ in pairs])), (len(self),) * 2)
        for row, group in enumerate(connected_components(links, directed=False)[1].tolist()):
            if row in best:
                groups.setdefault(group, []).append(row)
        return [
            (f"The same {len(rows)} times", [self.hit(row, best[row]) for row in rows])
            for rows in sorted(groups.values(), key=len, reverse=True)
        ]

    def clusters(self, num_clusters: int, seed: int) -> list[tuple[Hit, int]]:
        """Divides the rows by k-means, and gives the one nearest to each centre, with the size of its cluster."""
        if not 1 <= num_clusters <= len(self):
            raise ValueError(f"`num_clusters` must be from 1 to the {len(self)} embeddings, found: {num_clusters}.")
        vectors = self.vectors()
        means = KMeans(num_clusters, n_init=1, random_state=seed).fit(vectors)
        found = []
        for cluster, centre in enumerate(means.cluster_centers_):
            members = np.flatnonzero(means.labels_ == cluster)
            cosines = vectors[members] @ unit(centre[None])[0]
            if len(members):
                found.append((self.hit(int(members[cosines.argmax()]), float(cosines.max())), len(members)))
        return sorted(found, key=lambda pair: -pair[1])

    def hit(self, row: int, similarity: float) -> Hit:
        found = self.rows[row]
        labels = [str(label) for label in found.get("labels") or []]
        return Hit(str(found["path"]), found["start"] or 0.0, found["end"] or 0.0, similarity, labels)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scales vectors to length 1, float32; those of length 0 stay."""
    vectors = vectors.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def embed_examples(index: EmbeddingIndex, args: SearchArguments) -> tuple[np.ndarray, list[str]]:
    """
    Embeds the examples as the clips of the index were.

    Returns:
        `np.ndarray` of shape `(num_examples, embedding_size)`, one row for each clip or window, and the files.

    Raises:
        `ValueError`: The checkpoint is not the one that made the index, or an example cannot be read.
    """
    made_by, files = index.metadata, [str(Path(path).absolute()) for path in find_audio(args.like or [])]
    name = args.model_name_or_path or made_by["model"]
    revision = args.model_revision or (made_by["revision"] if name == made_by["model"] else None)
    embedder = ClipEmbedder(
        EmbeddingArguments(
            model_name_or_path=name,
            model_revision=revision or "main",
            trust_remote_code=args.trust_remote_code,
            window_seconds=made_by["window_seconds"],
            hop_seconds=made_by["hop_seconds"],
            top_k=0,
        )
    )
    checkpoint_of({"the index": made_by, "the model for the examples": embedder.metadata()}, ("weights",))
    audio = pa.array(
        [{"bytes": None, "path": path} for path in files], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    rows = embedder(pa.table({"audio": audio}))
    errors = [error for error in rows.column("error").to_pylist() if error]
    if errors or not files:
        raise ValueError("Each example must be a clip, found:\n" + "\n".join(errors or ["none"]))
    return np.stack(rows.column("embedding").to_pylist()).astype(np.float32), files


def search(index: EmbeddingIndex, args: SearchArguments) -> Groups:
    """Finds what the options ask for."""
    if args.duplicates:
        return index.duplicates(args.min_similarity)
    if args.num_clusters:
        clusters = index.clusters(args.num_clusters, args.seed)
        return [(f"One of {size}", [hit]) for hit, size in clusters]
    examples, files = embed_examples(index, args)
    return [(f"Like {', '.join(Path(file).name for file in files)}", index.like(examples, args.top_k, set(files)))]


def write_csv(groups: Groups, path: Path) -> None:
    """Writes a row for each hit, with the number of its group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["group", "path", "start", "end", "similarity", "labels"])
        for number, (_, hits) in enumerate(groups, 1):
            for hit in hits:
                times, labels = (f"{hit.start:g}", f"{hit.end:g}"), ";".join(hit.labels)
                table.writerow([number, hit.path, *times, f"{hit.similarity:.4f}", labels])
