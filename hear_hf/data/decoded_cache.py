"""Decoded clips in one memory-mapped file, so that training is not bound by decoding.

A folder holds, for each sampling rate, the 16-bit samples of all clips one after another, and an index with a digest
of each clip's source: clips are found again in any order, split or data set. What was interrupted goes on where it
ended. Clips above full scale are scaled down to it.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from .unusable import CLIPS_AT_ONCE, NUM_THREADS, UnusableClip, decode_usable

RECORD = np.dtype([("digest", "S16"), ("start", "<i8"), ("length", "<i8")])
PCM_SCALE = 2.0**15


class DecodedCache:
    """
    Clips decoded once to a rate.

    Args:
        folder (`Path`): Where they are, or will be.
        sampling_rate (`int`): Their rate in Hz.
    """

    def __init__(self, folder: str | Path, sampling_rate: int):
        self.folder, self.sampling_rate = Path(folder) / str(sampling_rate), sampling_rate
        self.samples_file, self.index_file = self.folder / "samples.int16", self.folder / "index"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._samples: np.memmap | None = None
        self._read_index()

    def get(self, audio: dict[str, Any]) -> np.ndarray | None:
        """Returns the samples of a clip, (num_samples,) for `as_float`, or `None` where the cache does not hold it."""
        record = self.records.get(digest(audio))
        if record is None:
            return None
        if self._samples is None:  # mapped by each process for itself
            self._samples = np.memmap(self.samples_file, dtype="<i2", mode="r")
        start, length = record
        return self._samples[start : start + length]

    def fill(self, clips: Iterable[Any], num_clips: int | None = None) -> None:
        """Decodes those clips that are missing, some at a time. Unusable ones are left to who reads them."""
        with FileLock(self.folder / "lock"), ThreadPoolExecutor(NUM_THREADS) as pool:
            self._read_index()
            self._drop_incomplete()
            with tqdm(total=num_clips, desc="Decoding", unit="clip", leave=False) as progress:
                iterator = iter(clips)
                while chunk := list(islice(iterator, CLIPS_AT_ONCE)):
                    missing = {digest(audio): audio for audio in chunk if isinstance(audio, dict)}
                    missing = {key: audio for key, audio in missing.items() if key not in self.records}
                    self._append(list(missing), list(pool.map(self._decode, missing.values())))
                    progress.update(len(chunk))
            self._samples = None

    def _decode(self, audio: dict[str, Any]) -> np.ndarray | None:
        try:
            samples = decode_usable(audio, 0.0, self.sampling_rate)
        except UnusableClip:
            return None
        samples = samples / max(1.0, float(np.abs(samples).max()))  # quieter, where it would be clipped
        return np.clip(np.round(samples * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype("<i2")

    def _append(self, keys: list[bytes], clips: list[np.ndarray | None]) -> None:
        """Writes the samples before the index, so that what the index names is complete."""
        records = np.zeros(sum(clip is not None for clip in clips), RECORD)
        found = [(key, clip) for key, clip in zip(keys, clips, strict=True) if clip is not None]
        with self.samples_file.open("ab") as file:
            for record, (key, clip) in zip(records, found, strict=True):
                record["digest"], record["start"], record["length"] = key, file.tell() // 2, len(clip)
                file.write(clip.tobytes())
        with self.index_file.open("ab") as file:
            file.write(records.tobytes())
        self._add(records)

    def _read_index(self) -> None:
        self.records: dict[bytes, tuple[int, int]] = {}
        self._samples = None
        if self.index_file.exists():
            encoded = self.index_file.read_bytes()
            self._add(np.frombuffer(encoded[: len(encoded) // RECORD.itemsize * RECORD.itemsize], RECORD))

    def _add(self, records: np.ndarray) -> None:
        for record in records:
            self.records[bytes(record["digest"])] = int(record["start"]), int(record["length"])

    def _drop_incomplete(self) -> None:
        """Cuts off what an interrupted run wrote in part."""
        end = max((start + length for start, length in self.records.values()), default=0)
        for path, size in ((self.samples_file, 2 * end), (self.index_file, RECORD.itemsize * len(self.records))):
            path.touch()
            with path.open("r+b") as file:
                file.truncate(size)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_samples": None}  # a worker would be sent all of it


def as_float(samples: np.ndarray) -> np.ndarray:
    """Returns a copy in float32, 16-bit samples scaled to [-1, 1]."""
    return samples / np.float32(PCM_SCALE) if samples.dtype == np.int16 else samples.astype(np.float32)


def digest(audio: dict[str, Any]) -> bytes:
    """Tells clips apart: by their bytes or, of a file, by its path, size and time of change."""
    if audio.get("bytes") is not None:
        content = audio["bytes"]
    else:
        path = Path(str(audio.get("path")))
        found = path.stat() if path.is_file() else None
        content = repr((str(path), found and found.st_size, found and found.st_mtime_ns)).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest().encode()
