"""Decodes audio: one reader for every command.

soundfile decodes and soxr resamples; torchcodec, which needs FFmpeg, only serves what soundfile cannot read. A file is
known by its content, never by its suffix, and read from its start to its end without a seek: some decoders do not
survive one. Where libsndfile would stop before the end (at the estimated length of an MP3, at the first of several
joined recordings, at a length that a recorder never wrote), it is given each part by itself.
"""

import io
import logging
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import soundfile
import soxr

logger = logging.getLogger(__name__)

# Far above any recording: samples this large were never divided by their integer range.
MAX_PEAK = 16.0
# Compressed and damaged files of a few kB can declare hours of many channels at any rate.
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz: heart sounds, and the fastest converters
MAX_DECODED = 2**30  # numbers in all channels: three hours of stereo at 48 kHz
MAX_SAMPLES = 2**29  # that are held at once, 2 GiB: nine hours at 16 kHz
BLOCK_FRAMES = 2**16  # libsndfile fills what it cannot read with zeros
CHUNK_BYTES = 2**16
CONVERT = "`ffmpeg -i IN -ar 16000 -ac 1 OUT.wav`"
ENDLESS = 2**40  # bytes, or samples

MpegFrame: TypeAlias = tuple[int, int, int, bool]  # bytes, samples, rate in Hz, whether it is mono
Source: TypeAlias = "BinaryIO | _Part"

# kbit/s by the index in an MPEG frame's header, from 1, for MPEG 1 or not and each layer
MPEG_BITRATES = {
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def decode_audio(audio: Any, sampling_rate: int) -> np.ndarray:
    """
    Decodes one clip, averages its channels and resamples it.

    Args:
        audio (`dict`, `str`, `Path` or `torchcodec.decoders.AudioDecoder`):
            A dictionary of `bytes` and `path`, one of which may be `None`; a dictionary of `array`, of shape
            `(num_samples,)` or with a channel axis before or after it, and `sampling_rate`; a path; or a decoder.
        sampling_rate (`int`):
            The rate to resample to, in Hz.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: float32, full scale 1; a file of floats may go beyond, up to
        `MAX_PEAK`.

    Raises:
        `FileNotFoundError`: The path leads to no file.
        `ValueError`: The clip cannot be read to its end, is empty, or holds values that are not finite or far outside
            [-1, 1]; its rate is no recording's; or it is longer than is held in memory.
    """
    samples, source_rate = read_audio(audio, sampling_rate)
    if source_rate != sampling_rate:
        samples = soxr.resample(samples, source_rate, sampling_rate)
    return samples.astype(np.float32, copy=False)


def read_duration(audio: dict[str, Any]) -> float | None:
    """Reads a clip's duration in seconds from the header of its file; `None` where only decoding tells."""
    try:
        return SoundfileReader(str(audio.get("path")), audio.get("bytes")).declared_duration()
    except (OSError, RuntimeError, ValueError):
        return None


def read_audio(audio: Any, sampling_rate: int = 0) -> tuple[np.ndarray, int]:
    """
    Decodes what `decode_audio` takes, at the clip's own rate: float32 of shape `(num_samples,)`, and the rate.

    A clip that would be too long to hold at `sampling_rate` is refused before it is decoded.
    """
    name, encoded = "the clip", None
    if hasattr(audio, "get_all_samples"):
        samples, source_rate = _read_decoder(audio, name, sampling_rate)
    elif isinstance(audio, dict) and audio.get("array") is not None:
        samples, source_rate = _read_array(audio["array"]), audio["sampling_rate"]
        _check_rate(name, source_rate)
        _check_length(name, len(samples), 1, source_rate, sampling_rate)
    else:
        path, encoded = (audio.get("path"), audio.get("bytes")) if isinstance(audio, dict) else (audio, None)
        if path is None and encoded is None:
            raise ValueError("An audio entry must have `bytes`, a `path` or an `array`, found none of them.")
        name = str(path or name)
        try:
            reader = SoundfileReader(name, encoded)
            samples, source_rate = reader.whole(sampling_rate), reader.sampling_rate
        except (soundfile.LibsndfileError, UnreadableAudio) as error:
            samples, source_rate = _read_with_torchcodec(name, encoded, error, sampling_rate)
    _check_values(samples, name)
    if samples.size == 0:
        raise _unfit(name, "no samples")
    return samples, source_rate


def read_blocks(path: str | Path, blocks_per_second: int) -> tuple[Iterator[np.ndarray], int]:
    """
    Decodes a file block by block and never holds all of it, unless torchcodec has to read it.

    Args:
        path (`str` or `Path`): The file.
        blocks_per_second (`int`): How many blocks a second of audio makes; the last block may be shorter.

    Returns:
        The blocks, `np.ndarray` of shape `(num_samples,)`, together equal to what `read_audio` returns; and their
        rate in Hz. The iterator raises `ValueError` where the file breaks in the middle.

    Raises:
        `FileNotFoundError`: The path leads to no file.
        `ValueError`: The file cannot be read.
    """
    name = str(path)
    try:
        reader = SoundfileReader(name)
    except (soundfile.LibsndfileError, UnreadableAudio) as error:
        samples, rate = _read_with_torchcodec(name, None, error)
        size = max(1, rate // blocks_per_second)
        return _checked((samples[i : i + size] for i in range(0, len(samples), size)), name), rate
    rate = reader.sampling_rate
    return _checked(reader.blocks(max(1, rate // blocks_per_second)), name), rate


def _checked(blocks: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
    found = False
    try:
        for block in blocks:
            _check_values(block, name)
            found = True
            yield block
    except (soundfile.LibsndfileError, UnreadableAudio) as error:
        raise ValueError(f"{name} must be whole, found: {_reason(error)} Mend it with {CONVERT}.") from error
    if not found:
        raise _unfit(name, "no samples")


def _check_values(samples: np.ndarray, name: str) -> None:
    peak = np.abs(samples).max(initial=0)
    if not peak <= MAX_PEAK:  # `not <=` catches NaN too
        raise _unfit(name, f"a peak of {peak}")


def _check_rate(name: str, rate: float) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(
            f"{name} must have a rate of {MIN_RATE} to {MAX_RATE} Hz, found {rate} Hz: its head is wrong. Leave it "
            f"out, or give its true rate, `ffmpeg -i IN -af asetrate=RATE OUT.wav`."
        )


def _check_length(name: str, num_frames: float, num_channels: int, rate: float, sampling_rate: int) -> None:
    """Refuses what is too long to decode, or to hold at its own rate or at `sampling_rate`."""
    held = num_frames * max(1.0, sampling_rate / rate)
    if num_frames * num_channels > MAX_DECODED or held > MAX_SAMPLES:
        raise ValueError(
            f"{name} must hold at most {MAX_DECODED} numbers in all its channels and {MAX_SAMPLES} samples at its own "
            f"rate and at the model's, found {num_frames / rate:.0f} s of {num_channels} channels at {rate} Hz. Cut "
            "it with `ffmpeg -i IN -f segment -segment_time 600 OUT%03d.wav`."
        )


def _unfit(name: str, found: str) -> ValueError:
    return ValueError(f"{name} must hold finite samples in [-1, 1], found {found}: leave it out or convert it anew")


def _read_decoder(decoder: Any, name: str, sampling_rate: int) -> tuple[np.ndarray, int]:
    head = decoder.metadata
    _check_rate(name, head.sample_rate)
    num_frames = (head.duration_seconds_from_header or 0) * head.sample_rate
    _check_length(name, num_frames, head.num_channels, head.sample_rate, sampling_rate)
    samples = decoder.get_all_samples()
    return samples.data.numpy().mean(axis=0), samples.sample_rate  # (num_channels, num_samples) -> (num_samples,)


def _read_array(array: Any) -> np.ndarray:
    array = np.atleast_2d(np.asarray(array))
    if array.size == 0:
        return np.zeros(0, np.float32)
    if array.dtype.kind == "i":
        array = array / -float(np.iinfo(array.dtype).min)
    # The channel axis is the shorter one.
    return (array.T if array.shape[0] > array.shape[1] else array).astype(np.float32).mean(axis=0)


def _read_with_torchcodec(
    name: str, encoded: bytes | None, first_error: Exception, sampling_rate: int = 0
) -> tuple[np.ndarray, int]:
    """Reads the bytes or, where they are `None`, the file `name`, which soundfile could not."""
    try:
        from torchcodec.decoders import AudioDecoder

        return _read_decoder(AudioDecoder(name if encoded is None else encoded), name, sampling_rate)
    except (ImportError, OSError, RuntimeError, ValueError) as error:  # RuntimeError: it found no FFmpeg either
        reason = str(error).partition("\n")[0]
        hint = ""
        if Path(name).suffix.lower() in (".raw", ".pcm"):
            hint = " Samples without a header are converted with `ffmpeg -f s16le -ar RATE -ac 1 -i IN OUT.wav`."
        raise ValueError(
            f"{name} must be audio that soundfile or torchcodec reads, found a file that begins "
            f"{_head(name, encoded)!r} (soundfile: {_reason(first_error)} torchcodec: {reason}). Convert it with "
            f"{CONVERT}, or install torchcodec and FFmpeg.{hint}"
        ) from error


def _head(name: str, encoded: bytes | None) -> bytes:
    with open(name, "rb") if encoded is None else io.BytesIO(encoded) as file:
        return _head_at(file, 0)


def _reason(error: Exception) -> str:
    return error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)


class UnreadableAudio(ValueError):
    """A file that libsndfile would read in part or wrongly."""


class SoundfileReader:
    """
    A file, or encoded bytes, read from start to end without a seek.

    Args:
        name (`str`): The file's path, or what to call the bytes.
        encoded (`bytes`, *optional*): The bytes of the file.

    Raises:
        `FileNotFoundError`: There is no such file.
        `soundfile.LibsndfileError`: libsndfile cannot read it.
        `UnreadableAudio`: libsndfile would read it in part or wrongly.
        `ValueError`: Its rate is no recording's.
    """

    def __init__(self, name: str, encoded: bytes | None = None):
        if encoded is None and not Path(name).is_file():
            raise FileNotFoundError(
                f"{name} must be an audio file, found none: check the path and the folder it is from."
            )
        self.name = name
        self._file: BinaryIO = open(name, "rb") if encoded is None else io.BytesIO(encoded)
        try:
            self._parts, self._declared_seconds = _split(self._file)
            self._current = _ForwardFile(self._parts[0])
            self.sampling_rate: int = self._current.samplerate
            _check_rate(name, self.sampling_rate)
        except BaseException:
            self._file.close()
            raise

    def blocks(self, num_frames: int) -> Iterator[np.ndarray]:
        """Yields the averaged channels, float32 of shape `(num_samples,)`, once: at most `num_frames` at a time."""
        num_read = num_declared = 0
        with self._file:
            for index, part in enumerate(self._parts):
                if index:
                    self._current = _ForwardFile(part)
                    if self._current.samplerate != self.sampling_rate:
                        raise UnreadableAudio(
                            f"it changes from {self.sampling_rate} to {self._current.samplerate} Hz."
                        )
                with self._current as file:
                    num_declared += file.frames
                    for block in _averaged_blocks(file, num_frames):
                        num_read += len(block)
                        yield block
        self._warn_if_short(num_read / self.sampling_rate, num_declared / self.sampling_rate)

    def whole(self, sampling_rate: int = 0) -> np.ndarray:
        """
        Reads all samples, float32 of shape `(num_samples,)`.

        Raises:
            `ValueError`: They are too many to decode, or to hold at their own rate or at `sampling_rate`. What the
                head declares is refused before anything is decoded.
        """
        blocks, num_read = [np.zeros(0, np.float32)], 0
        with self._file:
            declared = self._current.frames
            self._check_length(declared if declared < ENDLESS else 0, sampling_rate)
            for block in self.blocks(BLOCK_FRAMES):
                num_read += len(block)
                self._check_length(num_read, sampling_rate)
                blocks.append(block)
        return np.concatenate(blocks)

    def _check_length(self, num_frames: int, sampling_rate: int) -> None:
        _check_length(self.name, num_frames, self._current.channels, self.sampling_rate, sampling_rate)

    def declared_duration(self) -> float | None:
        """Returns the duration in seconds of one file that declares it, and closes the file."""
        with self._file, self._current as file:
            is_known = len(self._parts) == 1 and not self._parts[0].lead and file.frames < ENDLESS
            return file.frames / self.sampling_rate if is_known else None

    def _warn_if_short(self, seconds: float, soundfile_seconds: float) -> None:
        declared = soundfile_seconds if self._declared_seconds is None else self._declared_seconds
        if seconds < 0.99 * declared - 0.1 and declared < ENDLESS / self.sampling_rate:
            logger.warning(
                f"{self.name} holds {seconds:.2f} s of the {declared:.2f} s that its head or its size declares: it was"
                f" cut short, or its head is wrong. What there is, is used; {CONVERT} may find more."
            )


def _averaged_blocks(file: soundfile.SoundFile, num_frames: int) -> Iterator[np.ndarray]:
    """Averages the channels of `num_frames` frames at a time, and of many channels never holds all of these."""
    step = max(1, BLOCK_FRAMES // file.channels)
    while True:
        means: list[np.ndarray] = []
        missing = num_frames
        while missing and len(frames := file.read(min(step, missing), dtype="float32", always_2d=True)):
            means.append(frames.mean(axis=1) if file.channels > 1 else frames[:, 0])  # (num_frames, num_channels)
            missing -= len(frames)
        if not means:
            return
        yield np.concatenate(means)


class _ForwardFile(soundfile.SoundFile):
    """A file that soundfile reads without a seek after each block."""

    def seekable(self) -> bool:
        return False


class _Part:
    """
    The bytes of a file from `start` to `stop`, as libsndfile reads them.

    Args:
        file (`Source`): The whole file.
        start, stop (`int`): The part, in bytes.
        patches (`dict[int, bytes]`, *optional*): Bytes of the part to replace, by their place.
        endless (`bool`, *optional*, defaults to `False`): Whether to pretend that the end is far away, so that no
            length is estimated from it.
    """

    def __init__(
        self, file: Source, start: int, stop: int, patches: dict[int, bytes] | None = None, endless: bool = False
    ):
        self.file, self.start, self.size, self.patches = file, start, stop - start, patches or {}
        self.lead = ENDLESS if endless else 0
        self.place, self.told = 0, 0

    def read(self, num_bytes: int) -> bytes:
        self.file.seek(self.start + self.place)
        content = self.file.read(max(0, min(num_bytes, self.size - self.place)))
        for place, patch in self.patches.items():
            if place < self.place + len(content) and self.place < place + len(patch):
                content = _patched(content, place - self.place, patch)
        self.place += len(content)
        self.told = self.place
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = max(0, offset + (0, self.place, self.size)[whence])
        self.told = self.place + (self.lead if whence == os.SEEK_END else 0)
        return self.told

    def tell(self) -> int:
        return self.told


def _patched(content: bytes, place: int, patch: bytes) -> bytes:
    """Writes over bytes at a place that may lie in part before or behind them."""
    patch, place = patch[max(0, -place) :], max(0, place)
    patch = patch[: len(content) - place]
    return content[:place] + patch + content[place + len(patch) :]


def _split(file: Source) -> tuple[list[_Part], float | None]:
    """The parts of a file that libsndfile reads one by one, and the length that the file declares where we know it."""
    file = _without_lead(file)
    size = file.seek(0, os.SEEK_END)
    head = _head_at(file, 0)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        patches, declared = _mend_riff(file, size)
        return [_Part(file, 0, size, patches)], declared
    if head[:4] == b".snd" and head[8:] == bytes(4):  # a length of 0 that was to be written at the end
        return [_Part(file, 0, size, {8: b"\xff" * 4})], None
    if head[:4] == b"OggS":
        starts = _ogg_starts(file, size)
    elif head[:4] == b"fLaC":
        starts = _flac_starts(file)
    elif _mpeg_frame(head) and (files := _joined_mpeg_files(file, size)):
        stops = [part.start for part in files[1:]] + [size]
        parts = zip(files, stops, strict=True)
        seconds = sum(part.seconds() for part in files)
        return [_Part(file, part.start, stop, endless=part.declared is None) for part, stop in parts], seconds
    else:
        starts = [0]
    return [_Part(file, begin, stop) for begin, stop in pairwise([*starts, size])], None


def _without_lead(file: Source) -> Source:
    """The file behind ID3 tags and, of an MP3 file, behind zeros."""
    start = 0
    while tag := _id3_bytes(_head_at(file, start)):
        start += tag
    if _head_at(file, start).startswith(bytes(4)) and _mpeg_frame(_head_at(file, start + _zero_bytes(file, start))):
        start += _zero_bytes(file, start)
    return _Part(file, start, max(start, file.seek(0, os.SEEK_END))) if start else file


def _head_at(file: Source, place: int) -> bytes:
    file.seek(place)
    return file.read(12)


def _zero_bytes(file: Source, place: int) -> int:
    """The number of zeros at a place."""
    file.seek(place)
    count = 0
    while chunk := file.read(CHUNK_BYTES):
        count += len(chunk) - len(chunk.lstrip(b"\0"))
        if chunk.lstrip(b"\0"):
            break
    return count


def _id3_bytes(head: bytes) -> int:
    """The length of the ID3 tag with this head; 0 where there is none."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _mend_riff(file: Source, size: int) -> tuple[dict[int, bytes], float | None]:
    """What to write over the head of a WAV file whose recorder never wrote its length, and the declared seconds."""
    file.seek(0)
    order = ">" if file.read(4) == b"RIFX" else "<"
    bytes_per_second, data_size_64 = 0, None
    for name, place, length, body in _riff_chunks(file, 12, size, order):
        if name == b"ds64":
            data_size_64 = struct.unpack("<Q", body[8:16])[0]
        elif name == b"fmt ":
            bytes_per_second = struct.unpack(f"{order}I", body[8:12])[0]
        elif name == b"data":
            rest = size - place
            if length == 0 and rest and not _are_chunks(file, place, size, order):
                longest = struct.pack(f"{order}I", min(rest, 2**32 - 1))
                return {4: longest, place - 4: longest}, None
            if data_size_64 == 0 and length == 2**32 - 1:
                return {20: struct.pack("<Q", size - 8), 28: struct.pack("<Q", rest)}, None
            is_short = rest < length < 2**31 - 2**16  # pipes and recorders write more for "unknown"
            is_long = length < rest and not _are_chunks(file, place + length + length % 2, size, order)
            if bytes_per_second and (is_short or is_long):
                return {}, max(length, rest) / bytes_per_second
            break
    return {}, None


def _riff_chunks(file: Source, place: int, size: int, order: str) -> Iterator[tuple[bytes, int, int, bytes]]:
    """Name, place, declared length and first 16 bytes of each chunk."""
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        yield name, place + 8, length, file.read(16).ljust(16, b"\0")
        place += 8 + length + length % 2


def _are_chunks(file: Source, place: int, size: int, order: str) -> bool:
    """Whether what follows is chunks to the end, and no sound."""
    stop = place
    for name, start, length, _ in _riff_chunks(file, place, size, order):
        if not name.strip().isalnum():
            return False
        stop = start + length
    return size - 1 <= stop <= size


def _ogg_starts(file: Source, size: int) -> list[int]:
    """Where each of the recordings that are chained in an Ogg file begins."""
    starts, place, in_heads = [], 0, False
    while place < size:
        file.seek(place)
        head = file.read(27)
        if len(head) < 27 or head[:4] != b"OggS":
            place = _find(file, b"OggS", place + 1)
            if place < 0:
                break
            continue
        begins = bool(head[5] & 2)
        if begins and not in_heads:  # several streams that run side by side begin together
            starts.append(place)
        in_heads = begins
        place += 27 + head[26] + sum(file.read(head[26]))
    return [0, *starts[1:]]


def _flac_starts(file: Source) -> list[int]:
    """Where each of the joined FLAC files begins: at its mark and the head of its first block."""
    starts, place = [0], 4
    while (place := _find(file, b"fLaC", place)) >= 0:
        file.seek(place + 4)
        if file.read(4) in (b"\0\0\0\x22", b"\x80\0\0\x22"):
            starts.append(place)
        place += 4
    return starts


def _find(file: Source, mark: bytes, place: int) -> int:
    """The place of the next mark, -1 where there is none."""
    file.seek(place)
    kept = b""
    while chunk := file.read(CHUNK_BYTES):
        found = (kept + chunk).find(mark)
        if found >= 0:
            return place - len(kept) + found
        place += len(chunk)
        kept = (kept + chunk)[1 - len(mark) :]
    return -1


def _mpeg_frame(head: bytes) -> MpegFrame | None:
    """The MPEG frame with this head; `None` where it is no head."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    slot = 4 if layer == 1 else 1
    length = samples // 8 * 1000 * MPEG_BITRATES[version == 3, layer][bitrate - 1] // hertz // slot
    return (length + (head[2] >> 1 & 1)) * slot, samples, hertz, head[3] >> 6 == 3


def _mpeg_frames(file: Source, size: int) -> Iterator[tuple[int, MpegFrame]]:
    """The place and the format of each MPEG frame that follows another one or that another one follows."""
    place, in_step = 0, False
    while place + 4 <= size:
        frame = _frame_at(file, place)
        if frame and (in_step or _frame_at(file, place + frame[0])):
            yield place, frame
            place, in_step = place + frame[0], True
            continue
        place += _id3_bytes(_head_at(file, place)) or _bytes_to_sync(file, place)
        in_step = False


def _frame_at(file: Source, place: int) -> MpegFrame | None:
    return _mpeg_frame(_head_at(file, place))


def _bytes_to_sync(file: Source, place: int) -> int:
    """How far it is to what may be the next frame or tag."""
    file.seek(place + 1)
    chunk = file.read(1024)
    found = re.search(rb"\xff[\xe2-\xff][\x10-\xef]|ID3", chunk)
    return 1 + (found.start() if found else max(0, len(chunk) - 2))


@dataclass
class _MpegFile:
    """One of the MP3 files that are joined in one."""

    start: int
    declared: int | None  # the number of its frames by its first one
    frame_seconds: float
    num_frames: int = 0
    formats: Counter[tuple[int, bool]] = field(default_factory=Counter)

    def is_over(self) -> bool:
        return self.num_frames == self.declared

    def changes(self) -> bool:
        """Whether its format changes, and not only that of a damaged frame or two."""
        return self.num_frames > 2 + max(self.formats.values(), default=0)

    def seconds(self) -> float:
        """How long it lasts at least: decoders take up to four frames of padding away."""
        return (max(self.declared or 0, self.num_frames) - 4) * self.frame_seconds


def _joined_mpeg_files(file: Source, size: int) -> list[_MpegFile]:
    """The MP3 files in one: each begins with a frame that declares their number, or where the last one is over."""
    files: list[_MpegFile] = []
    for place, (length, samples, rate, is_mono) in _mpeg_frames(file, size):
        file.seek(place)
        declared = _declared_frames(file.read(min(length, 192)))
        if not files or declared is not None or files[-1].is_over():
            files.append(_MpegFile(place, declared, samples / rate))
        if declared is None:
            files[-1].num_frames += 1
            files[-1].formats[rate, is_mono] += 1
    # One or two frames more than a file declares are no file of their own.
    files = files[:1] + [part for part in files[1:] if part.declared is not None or part.num_frames > 2]
    if any(part.changes() for part in files):
        raise UnreadableAudio("its rate or its number of channels changes.")
    return files


def _declared_frames(frame: bytes) -> int | None:
    """The number of frames that follow, which the first MPEG frame of a file may hold."""
    for mark in (b"Xing", b"Info"):
        place = frame.find(mark, 4, 48)
        if place >= 0 and len(frame) >= place + 12 and frame[place + 7] & 1:
            return struct.unpack(">I", frame[place + 8 : place + 12])[0] or None  # some encoders leave a 0 there
    return None
