"""Collections of sound files cut into clips: a table for each source, with the licence and the credit of each clip."""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soxr
from tqdm.auto import tqdm

from ..arguments import option
from .clip_tables import ClipTable, encode_clip
from .decoding import read_audio
from .workers import map_in_order

SUFFIXES = (".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3", ".aif", ".aiff", ".au")
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz
MIN_SECONDS = 0.3
MIN_PEAK = 1e-3  # of full scale; what stays below is taken for silence
COLUMNS = ("source", "licence", "credit")


@dataclass
class SoundFilesArguments:
    """How sound files become clips, and where these go."""

    output_dir: str = option(
        default="free_sounds", help="Write a table for each source into this folder; those that are there are kept."
    )
    piece_seconds: float = option(default=30.0, help="Cut longer files into pieces of so many seconds.")
    max_pieces: int = option(default=4, help="Keep at most so many pieces of a file, spread over it.")
    num_proc: int = option(default=1, help="Encode in so many processes.")

    def __post_init__(self):
        for name, least in (("piece_seconds", MIN_SECONDS), ("max_pieces", 1), ("num_proc", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, found: {getattr(self, name)}")


@dataclass
class SoundFile:
    """An audio file: its bytes, or `None` where it is missing, and where it is from, with version or commit."""

    name: str
    data: bytes | None
    source: str
    licence: str
    credit: str = ""


@dataclass
class Cut:
    """The encoded pieces of a file and their length together, or what is wrong with it."""

    file: SoundFile
    pieces: list[bytes]
    seconds: float = 0.0
    problem: str = ""


def cut(file: SoundFile, piece_seconds: float, max_pieces: int) -> Cut:
    """
    Cuts a file into mono clips, each in Ogg Opus at the lowest rate that keeps what is heard.

    Args:
        file (`SoundFile`): What to cut.
        piece_seconds (`float`): The length of a piece; a shorter file is one.
        max_pieces (`int`): The most pieces, spread evenly over the file.
    """
    if file.data is None:
        return Cut(file, [], problem="missing")
    try:
        samples, rate = read_audio({"bytes": file.data, "path": file.name})
    except ValueError:
        return Cut(file, [], problem="unreadable")
    if len(samples) < MIN_SECONDS * rate:
        return Cut(file, [], problem="too short")
    if not np.abs(samples).max() >= MIN_PEAK:
        return Cut(file, [], problem="silent")
    opus_rate = next((each for each in OPUS_RATES if each >= rate), OPUS_RATES[-1])
    size = int(piece_seconds * rate)
    count = min(max_pieces, -(-len(samples) // size))
    starts = np.linspace(0, max(0, len(samples) - size), count).astype(int)
    pieces = [soxr.resample(samples[start : start + size], rate, opus_rate) for start in starts]
    encoded = [encode_clip(piece, opus_rate) for piece in pieces]
    return Cut(file, encoded, sum(map(len, pieces)) / opus_rate)


def collect(sources: Iterable[str], files_of: Callable[[str], Iterator[SoundFile]], args: SoundFilesArguments) -> int:
    """
    Writes a table of clips for each source with the columns `audio`, `source`, `licence` and `credit`.

    A source whose table is there is kept. A source that fails is counted and named, and the others go on.

    Args:
        sources (`Iterable[str]`): Their names, which their tables get.
        files_of (`Callable`): Yields the files of a source.
        args (`SoundFilesArguments`): How to cut them, and where to.

    Returns:
        `int`: The number of clips written.

    Raises:
        `ValueError`: Some source failed; the message names the first ones.
    """
    tables = {source: Path(args.output_dir) / f"{source}.parquet" for source in sources}
    missing = [source for source, table in tables.items() if not table.exists()]
    if len(missing) < len(tables):
        print(f"{len(tables) - len(missing)} of {len(tables)} tables are in {args.output_dir} and are kept.")
    num_clips, failures = 0, []
    for source in (progress := tqdm(missing, desc="Collecting", unit="source")):
        progress.set_postfix_str(source)
        try:
            num_clips += _write_table(tables[source], files_of(source), args)
        except (ValueError, OSError, subprocess.SubprocessError) as error:
            failures.append(f"{source}: {_reason(error)}")
            tqdm.write(f"Failed: {failures[-1]}")
    if failures:
        raise ValueError(
            f"Every source must give clips, found {len(failures)} of {len(missing)} that failed: "
            f"{'; '.join(failures[:3])}. The others are written: give the command again to try these again."
        )
    return num_clips


def _write_table(path: Path, files: Iterator[SoundFile], args: SoundFilesArguments) -> int:
    cut_file = partial(cut, piece_seconds=args.piece_seconds, max_pieces=args.max_pieces)
    problems: Counter[str] = Counter()
    num_clips, seconds = 0, 0.0
    with ClipTable(path, None, COLUMNS) as table:
        for result in map_in_order(cut_file, files, args.num_proc):
            problems.update([result.problem] if result.problem else [])
            for i, piece in enumerate(result.pieces):
                name = Path(result.file.name).stem + (f"-{i}" if len(result.pieces) > 1 else "")
                texts = {column: getattr(result.file, column) for column in COLUMNS}
                table.add(piece, f"{path.stem}/{name}.opus", **texts)
            num_clips, seconds = num_clips + len(result.pieces), seconds + result.seconds
        counts = "".join(f", {count} {problem}" for problem, count in sorted(problems.items()))
        if num_clips == 0:
            raise ValueError(f"it must hold audio that can be read, found none{counts}")
    tqdm.write(f"{path.stem}: {num_clips} clips, {seconds / 3600:.2f} h{counts}")
    return num_clips


def _reason(error: Exception) -> str:
    """What a program said of its failure, its warnings aside, or the error itself."""
    said = getattr(error, "stderr", None) or b""
    lines = (said if isinstance(said, str) else said.decode(errors="replace")).splitlines()
    return next((line for line in lines if line and not line.startswith(("W: ", "warning: "))), str(error))
