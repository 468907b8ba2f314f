"""Audio in blocks, as it comes: from a file, a microphone, or raw samples on standard input."""

import sys
from collections.abc import Iterator

import numpy as np
import soxr

from .decoding import read_blocks

BLOCKS_PER_SECOND = 10


def live_blocks(source: str | None, sampling_rate: int) -> Iterator[np.ndarray]:
    """
    Reads audio in blocks of a tenth of a second.

    Args:
        source (`str`, *optional*): An audio file, `-` for standard input, or `None` for the default microphone.
        sampling_rate (`int`): Rate of the blocks in Hz. Files are resampled; the other sources must have it.

    Yields:
        `np.ndarray` of shape `(num_samples,)`: Mono, float32 in [-1, 1], or int16 from standard input.
    """
    if source is None:
        return microphone_blocks(sampling_rate)
    return raw_blocks(sampling_rate) if source == "-" else file_blocks(source, sampling_rate)


def file_blocks(path: str, sampling_rate: int) -> Iterator[np.ndarray]:
    """Reads a file of any rate and number of channels; raises what `read_blocks` does, also in its middle."""
    blocks, source_rate = read_blocks(path, BLOCKS_PER_SECOND)
    resampler = soxr.ResampleStream(source_rate, sampling_rate, 1, dtype="float32")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def raw_blocks(sampling_rate: int) -> Iterator[np.ndarray]:
    """Reads standard input: int16 in the machine's byte order, mono, at the given rate."""
    size = sampling_rate // BLOCKS_PER_SECOND * np.dtype(np.int16).itemsize
    while data := sys.stdin.buffer.read(size):
        yield np.frombuffer(data, np.int16, len(data) // 2)


def microphone_blocks(sampling_rate: int) -> Iterator[np.ndarray]:
    """Listens to the default microphone, without end."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: it found no PortAudio
        raise ImportError(
            f"--microphone needs the package sounddevice and the library PortAudio, found: {error}. Install them, or "
            "pipe a recorder's raw samples into this script with `-` in place of a file."
        ) from error
    with sounddevice.InputStream(sampling_rate, channels=1, dtype="float32", latency="high") as stream:
        while True:
            block, overflowed = stream.read(sampling_rate // BLOCKS_PER_SECOND)
            if overflowed:
                print("Audio was lost: the model is slower than the microphone. Try a longer --hop.", file=sys.stderr)
            yield block[:, 0]
