"""Decodes audio: one reader for every command.

soundfile decodes and soxr resamples; torchcodec, which needs FFmpeg, only serves what soundfile cannot read. A file is
known by its content, never by its suffix, and read from its start to its end without a seek: some decoders do not
survive one.
"""

import io
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from .containers import ENDLESS, Part, UnreadableAudio, has_more_frames, split

logger = logging.getLogger(__name__)

# Far above any recording: samples this large were never divided by their integer range.
MAX_PEAK = 16.0
# Compressed and damaged files of a few kB can declare hours of many channels at any rate.
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz: heart sounds, and the fastest converters
MAX_DECODED = 2**30  # numbers in all channels: three hours of stereo at 48 kHz
MAX_SAMPLES = 2**29  # that are held at once, 2 GiB: nine hours at 16 kHz
BLOCK_FRAMES = 2**16  # libsndfile fills what it cannot read with zeros
MAX_NUMBERS_PER_BYTE = 100  # of a file that is not held; speech in Opus has some 60, silence in FLAC thousands
MIN_MEAN_POWER = 1e-4  # -40 dB of what the channels hold: even a hundred that have nothing in common keep a hundredth
CONVERT = "`ffmpeg -i IN -ar 16000 -ac 1 OUT.wav`"
# What people have under the name of a recording, by what it begins with, and what to do.
NO_SOUND = {
    b"version http": "It is a pointer of Git LFS: get the file itself with `git lfs pull`.",
    **dict.fromkeys((b"PK\3\4", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!"), "It is an archive: unpack it."),
    **dict.fromkeys((b"<", b"{"), "It is a page or a message of the web: download the recording again."),
}
# libsndfile's note of a declared length that is not the file's.
WRONG_LENGTH = re.compile(r"(?:data|SSND|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)")


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
        samples, source_rate = _read_array(audio)
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
        except soundfile.LibsndfileError as error:
            samples, source_rate = _read_with_torchcodec(name, encoded, error, sampling_rate)
        except UnreadableAudio as error:
            raise _broken(name, error) from error
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
        rate in Hz. The iterator raises `ValueError` where the file breaks in the middle, or when a small file has
        given more than any recording holds.

    Raises:
        `FileNotFoundError`: The path leads to no file.
        `ValueError`: The file cannot be read.
    """
    name = str(path)
    try:
        reader = SoundfileReader(name)
    except UnreadableAudio as error:
        raise _broken(name, error) from error
    except soundfile.LibsndfileError as error:
        samples, rate = _read_with_torchcodec(name, None, error)
        size = max(1, rate // blocks_per_second)
        return _checked((samples[i : i + size] for i in range(0, len(samples), size)), name), rate
    rate = reader.sampling_rate
    most = max(MAX_DECODED, MAX_NUMBERS_PER_BYTE * Path(path).stat().st_size)
    return _checked(reader.blocks(max(1, rate // blocks_per_second), most), name), rate


def _checked(blocks: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
    found = False
    try:
        for block in blocks:
            _check_values(block, name)
            found = True
            yield block
    except (soundfile.LibsndfileError, UnreadableAudio) as error:
        raise _broken(name, error) from error
    if not found:
        raise _unfit(name, "no samples")


def _check_values(samples: np.ndarray, name: str) -> None:
    peak = np.abs(samples).max(initial=0)
    if not peak <= MAX_PEAK:  # `not <=` catches NaN too
        raise _unfit(name, f"a peak of {peak}")


def _broken(name: str, error: Exception) -> ValueError:
    return ValueError(f"{name} must be whole, found: {_reason(error)} Mend it with {CONVERT}.")


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
    num_frames = (head.duration_seconds_from_header or 0) * head.sample_rate
    _check_rate(name, head.sample_rate)
    _check_length(name, num_frames, head.num_channels, head.sample_rate, sampling_rate)
    longest = MAX_DECODED / head.sample_rate / head.num_channels + 1  # what comes out may be longer
    samples = decoder.get_samples_played_in_range(stop_seconds=longest)
    rate, (num_channels, num_samples) = samples.sample_rate, samples.data.shape
    _check_length(name, num_samples, num_channels, rate, sampling_rate)
    channels = samples.data.numpy()  # (num_channels, num_samples)
    mean = channels.mean(axis=0)
    _warn_if_cancelled(name, np.vdot(channels, channels) / num_channels, np.vdot(mean, mean))
    if head.begin_stream_seconds_from_header is not None:  # then the length is no estimate
        _warn_if_short(name, num_samples / rate, head.duration_seconds or 0)
    return mean, rate


def _read_array(audio: dict[str, Any]) -> tuple[np.ndarray, Any]:
    array, rate = audio["array"], audio.get("sampling_rate")
    if not isinstance(rate, int | float | np.number):
        raise ValueError(f"`sampling_rate` must be a number of Hz beside `array`, found: {rate!r}. Add it.")
    if str(getattr(array, "dtype", "")) == "torch.bfloat16":  # which numpy does not have
        array = array.float()
    array = np.atleast_2d(np.asarray(array))
    if array.ndim > 2 or array.dtype.kind not in "fi":
        raise ValueError(
            "`array` must hold floats or signed integers, of shape (num_samples,) or with a channel axis, found: "
            f"{array.dtype} of shape {array.shape}. Convert it."
        )
    if array.size == 0:
        return np.zeros(0, np.float32), rate
    if array.dtype.kind == "i":
        array = array / -float(np.iinfo(array.dtype).min)
    # The channel axis is the shorter one.
    return (array.T if array.shape[0] > array.shape[1] else array).astype(np.float32).mean(axis=0), rate


def _read_with_torchcodec(
    name: str, encoded: bytes | None, first_error: Exception, sampling_rate: int = 0
) -> tuple[np.ndarray, int]:
    """Reads the bytes or, where they are `None`, the file `name`, which soundfile could not."""
    try:
        from torchcodec.decoders import AudioDecoder

        return _read_decoder(AudioDecoder(name if encoded is None else encoded), name, sampling_rate)
    except (ImportError, OSError, RuntimeError, ValueError) as error:  # RuntimeError: it found no FFmpeg either
        reason = str(error).partition("\n")[0]
        head = _head(name, encoded)
        hint = next((f" {hint}" for mark, hint in NO_SOUND.items() if head.startswith(mark)), "")
        if Path(name).suffix.lower() in (".raw", ".pcm"):
            hint = " Samples without a header are converted with `ffmpeg -f s16le -ar RATE -ac 1 -i IN OUT.wav`."
        if not head:
            hint = " It is empty: copy or download it again."
        raise ValueError(
            f"{name} must be audio that soundfile or torchcodec reads, found a file that begins "
            f"{head!r} (soundfile: {_reason(first_error)} torchcodec: {reason}). Convert it with "
            f"{CONVERT}, or install torchcodec and FFmpeg.{hint}"
        ) from error


def _head(name: str, encoded: bytes | None) -> bytes:
    with open(name, "rb") if encoded is None else io.BytesIO(encoded) as file:
        return file.read(12)


def _reason(error: Exception) -> str:
    return error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)


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
            self._parts, self._declared_seconds = split(self._file)
            self._current = _ForwardFile(self._parts[0])
            self.sampling_rate: int = self._current.samplerate
            _check_rate(name, self.sampling_rate)
        except BaseException:
            self._file.close()
            raise

    def blocks(self, num_frames: int, most: float = math.inf) -> Iterator[np.ndarray]:
        """Yields the averaged channels, float32 of shape `(num_samples,)`, once: at most `num_frames` at a time.

        Raises `UnreadableAudio` when the channels together have given more than `most` numbers.
        """
        num_read, num_declared, powers = 0, 0.0, np.zeros(2)
        with self._file:
            for index, part in enumerate(self._parts):
                if index:
                    self._current = _ForwardFile(part)
                    if self._current.samplerate != self.sampling_rate:
                        raise UnreadableAudio(
                            f"it changes from {self.sampling_rate} to {self._current.samplerate} Hz."
                        )
                with self._current as file:
                    for block in _averaged_blocks(file, num_frames, powers):
                        num_read += len(block)
                        if num_read * file.channels > most:
                            raise UnreadableAudio(f"more than {most:.0f} numbers in so small a file.")
                        yield block
                    num_declared += _declared_frames(file, part)
        _warn_if_cancelled(self.name, *powers)
        declared = num_declared / self.sampling_rate if self._declared_seconds is None else self._declared_seconds
        if declared < ENDLESS / self.sampling_rate:
            _warn_if_short(self.name, num_read / self.sampling_rate, declared)
        if self._parts[-1].is_cut:
            logger.warning(
                f"{self.name} breaks off after {num_read / self.sampling_rate:.2f} s: it was cut short, or recorded "
                "from a stream. What there is, is used."
            )

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


def _declared_frames(file: soundfile.SoundFile, part: Part) -> float:
    """How many frames a file declares by its head or its size; libsndfile's count is that of what there is."""
    num_read = part.place
    if file.format == "FLAC" and num_read < part.size and has_more_frames(part):
        return file.frames * part.size / num_read
    if part.excess > 1:
        return file.frames * part.excess
    found = WRONG_LENGTH.findall(file.extra_info)
    declared, held = map(int, found[-1]) if found else (1, 1)
    is_cut = 0 < held < declared < 2**31 - 2**16  # pipes and recorders write more for "unknown"
    return file.frames * declared / held if is_cut else file.frames


def _warn_if_short(name: str, seconds: float, declared: float) -> None:
    if seconds < 0.99 * declared - 0.1:
        logger.warning(
            f"{name} holds {seconds:.2f} s of the {declared:.2f} s that its head or its size declares: it was cut "
            f"short, or its head is wrong. What there is, is used; {CONVERT} may find more."
        )


def _warn_if_cancelled(name: str, channel_power: float, mean_power: float) -> None:
    if mean_power < MIN_MEAN_POWER * channel_power:
        logger.warning(
            f"{name} is silent where its channels are averaged, as they cancel one another: one is wired the wrong "
            "way round. Keep one of them, `ffmpeg -i IN -af 'pan=mono|c0=c0' OUT.wav`."
        )


def _averaged_blocks(file: soundfile.SoundFile, num_frames: int, powers: np.ndarray) -> Iterator[np.ndarray]:
    """
    Averages the channels of `num_frames` frames at a time, and of many channels never holds all of these.

    Of several channels, their mean power and that of their mean are added to the `powers`. Behind the last frame of
    FLAC there may be tags, on which its decoder fails.
    """
    step = max(1, BLOCK_FRAMES // file.channels)
    left = file.frames if file.format == "FLAC" else ENDLESS
    while True:
        means: list[np.ndarray] = []
        missing = min(num_frames, left)
        while missing and len(frames := file.read(min(step, missing), dtype="float32", always_2d=True)):
            means.append(frames.mean(axis=1) if file.channels > 1 else frames[:, 0])  # (num_frames, num_channels)
            if file.channels > 1:
                powers += np.vdot(frames, frames) / file.channels, np.vdot(means[-1], means[-1])
            missing -= len(frames)
            left -= len(frames)
        if not means:
            return
        yield np.concatenate(means)


class _ForwardFile(soundfile.SoundFile):
    """A file that soundfile reads without a seek after each block."""

    def seekable(self) -> bool:
        return False
