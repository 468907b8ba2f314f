"""Decodes audio.

Files are decoded by soundfile and resampled by soxr; torchcodec, which needs FFmpeg, only serves formats that
soundfile cannot read.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

# Beyond any decoder's overshoot: samples this large were never divided by their integer range.
MAX_PEAK = 16.0
BLOCK_FRAMES = 2**20


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
        `np.ndarray` of shape `(num_samples,)`: float32 in [-1, 1].

    Raises:
        `FileNotFoundError`: The path leads to no file.
        `ValueError`: The clip cannot be read, is empty, or holds values that are not finite or far outside [-1, 1].
    """
    samples, source_rate = read_audio(audio)
    if source_rate != sampling_rate:
        samples = soxr.resample(samples, source_rate, sampling_rate)
    return np.clip(samples, -1, 1).astype(np.float32)


def read_duration(audio: dict[str, Any]) -> float | None:
    """Reads a clip's duration in seconds from the header of its file; `None` where soundfile finds none."""
    encoded = audio.get("bytes")
    try:
        return float(soundfile.info(audio.get("path") if encoded is None else io.BytesIO(encoded)).duration)
    except (OSError, RuntimeError, TypeError):
        return None


def read_audio(audio: Any) -> tuple[np.ndarray, int]:
    """Decodes what `decode_audio` takes, at the clip's own rate: float32 of shape `(num_samples,)`, and the rate."""
    name = "the clip"
    if hasattr(audio, "get_all_samples"):
        samples, source_rate = _read_decoder(audio)
    elif isinstance(audio, dict) and audio.get("array") is not None:
        samples, source_rate = _read_array(audio["array"]), audio["sampling_rate"]
    else:
        path, encoded = (audio.get("path"), audio.get("bytes")) if isinstance(audio, dict) else (audio, None)
        if path is None and encoded is None:
            raise ValueError("An audio entry must have `bytes`, a `path` or an `array`, found none of them.")
        name = str(path or name)
        samples, source_rate = _read_encoded(encoded, name)

    peak = np.abs(samples).max(initial=0)
    if samples.size == 0 or not peak <= MAX_PEAK:  # `not <=` catches NaN too
        found = "no samples" if samples.size == 0 else f"a peak of {peak}"
        raise ValueError(f"{name} must hold finite samples in [-1, 1], found {found}: leave it out or convert it anew")
    return samples.mean(axis=0), source_rate  # (num_channels, num_samples) -> (num_samples,)


def _read_decoder(decoder: Any) -> tuple[np.ndarray, int]:
    samples = decoder.get_all_samples()
    return samples.data.numpy(), samples.sample_rate


def _read_array(array: Any) -> np.ndarray:
    array = np.atleast_2d(np.asarray(array))
    if array.dtype.kind == "i":
        array = array / -float(np.iinfo(array.dtype).min)
    # The channel axis is the shorter one.
    return (array.T if array.shape[0] > array.shape[1] else array).astype(np.float32)


def _read_encoded(encoded: bytes | None, name: str) -> tuple[np.ndarray, int]:
    """Reads the bytes or, where they are `None`, the file `name`."""
    if encoded is None and not Path(name).is_file():
        raise FileNotFoundError(f"{name} must be an audio file, found none: check the path and the folder it is from.")
    try:
        source = name if encoded is None else io.BytesIO(encoded)
        with soundfile.SoundFile(source) as file:
            blocks = []  # for the length that the head of a broken file declares may be any
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                blocks.append(block)
            return np.concatenate(blocks or [np.zeros((0, file.channels), np.float32)]).T, file.samplerate
    except soundfile.LibsndfileError as error:
        soundfile_error = error
    try:
        from torchcodec.decoders import AudioDecoder

        return _read_decoder(AudioDecoder(name if encoded is None else encoded))
    except (ImportError, OSError, RuntimeError, ValueError) as error:  # RuntimeError: it found no FFmpeg either
        head = (Path(name).read_bytes() if encoded is None else encoded)[:12]
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{name} must be audio that soundfile or torchcodec reads, found a file that begins {head!r} "
            f"(soundfile: {soundfile_error.error_string} torchcodec: {reason}). Convert it to wav or flac, or install "
            "torchcodec and FFmpeg."
        ) from error
