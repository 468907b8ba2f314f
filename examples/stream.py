"""Names the sounds in live audio as it comes: from a file, a microphone, or raw samples on standard input.

    python examples/stream.py runs/digits recording.flac
    python examples/stream.py runs/digits --microphone
    ffmpeg -i video.mp4 -f s16le -ac 1 -ar 16000 - | python examples/stream.py runs/digits -

Prints a line whenever the likeliest label of the last seconds changes, and at the end the label of the whole. Ctrl-C
ends it early. The microphone needs `pip install sounddevice`.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from transformers import AutoModelForAudioClassification

from hear_hf import HEARStream, HEARStreamResult

BLOCKS_PER_SECOND = 10


def file_blocks(path: str, sampling_rate: int) -> Iterator[np.ndarray]:
    """Blocks of a file of any rate and number of channels, which is never decoded whole."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} must be an audio file, found none: check the path.")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{path} must be audio that soundfile reads, found none: {error.error_string} Convert it to wav or flac."
        ) from error
    with file:
        resampler = soxr.ResampleStream(file.samplerate, sampling_rate, 1, dtype="float32")
        while len(block := file.read(file.samplerate // BLOCKS_PER_SECOND, dtype="float32", always_2d=True)):
            yield resampler.resample_chunk(block.mean(axis=1))
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def raw_blocks(sampling_rate: int) -> Iterator[np.ndarray]:
    """Blocks of standard input: int16 in the machine's byte order, mono, at the model's rate."""
    size = sampling_rate // BLOCKS_PER_SECOND * np.dtype(np.int16).itemsize
    while data := sys.stdin.buffer.read(size):
        yield np.frombuffer(data, np.int16, len(data) // 2)


def microphone_blocks(sampling_rate: int) -> Iterator[np.ndarray]:
    """Blocks of the default microphone, without end."""
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


def describe(result: HEARStreamResult, labels: dict[int, str]) -> dict:
    best = result.scores.argmax().item()
    return {"start": result.start, "end": result.end, "label": labels[best], "score": result.scores[best].item()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="A folder, or a repository of the Hub.")
    parser.add_argument("source", nargs="?", help="An audio file, or - for int16 mono samples at the model's rate.")
    parser.add_argument("--microphone", action="store_true", help="Listen to the default microphone until Ctrl-C.")
    parser.add_argument("--window", type=float, default=2.0, help="Seconds classified at once (default: 2).")
    parser.add_argument("--hop", type=float, default=0.5, help="Seconds between two windows (default: 0.5).")
    parser.add_argument("--json", action="store_true", help="Print every window, and the whole, as a line of JSON.")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="Run the code that a repository brings along."
    )
    args = parser.parse_args(argv)
    if args.microphone == (args.source is not None):
        parser.error("give either an audio file, or - for standard input, or --microphone")

    model = AutoModelForAudioClassification.from_pretrained(args.model, trust_remote_code=args.trust_remote_code)
    rate, labels = model.config.sampling_rate, model.config.id2label
    stream = HEARStream(model, rate, args.window, args.hop)
    if args.microphone:
        blocks = microphone_blocks(rate)
    else:
        blocks = raw_blocks(rate) if args.source == "-" else file_blocks(args.source, rate)

    try:
        try:
            print_windows(stream, blocks, labels, args.json)
        except KeyboardInterrupt:
            pass  # the end of a microphone
        whole = describe(stream.finish(), labels)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
    print(json.dumps(whole) if args.json else f"{whole['end']:7.1f} s in all: {whole['label']} {whole['score']:.1%}")


def print_windows(stream: HEARStream, blocks: Iterable[np.ndarray], labels: dict[int, str], as_json: bool) -> None:
    shown = None
    for block in blocks:
        for result in stream.push(block):
            found = describe(result, labels)
            if as_json:
                print(json.dumps(found), flush=True)
            elif found["label"] != shown:
                print(f"{found['end']:7.1f} s: {found['label']} {found['score']:.1%}", flush=True)
            shown = found["label"]


if __name__ == "__main__":
    main()
