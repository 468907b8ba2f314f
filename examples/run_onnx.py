"""Names the sounds in audio files with a file of `export_onnx.py`, without PyTorch; of a model of frames also when.

    python run_onnx.py model.onnx one.wav two.flac

Needs `pip install onnxruntime soundfile`, and soxr for files at another rate than the model's.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

MAX_PEAK = 16
MAX_DECODED = 2**29  # numbers in all channels
BLOCK_FRAMES = 1152  # as an MPEG frame: a larger block may decode further than it returns
# Bytes that may follow the audio: tags, and what pads the last frames.
MAX_UNREAD_BYTES = {"MP3": 4096, "OGG": 0, "FLAC": 0}


class ForwardFile(soundfile.SoundFile):
    """A file that soundfile reads without a seek after each block: some decoders do not survive it."""

    def seekable(self) -> bool:
        return False


def read_clip(file: str, sampling_rate: int) -> np.ndarray:
    """Reads a file as one channel at this rate, to its end or not at all."""
    content = io.BytesIO(Path(file).read_bytes())
    blocks = [np.zeros(0, np.float32)]
    with ForwardFile(content) as audio:
        source_rate, numbers = audio.samplerate, audio.frames * audio.channels
        if not 1_000 <= source_rate <= 768_000 or MAX_DECODED < numbers < 2**40:  # more stands for "unknown"
            raise ValueError(f"its rate or length is absurd, found {numbers} numbers at {source_rate} Hz")
        while len(block := audio.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            blocks.append(block.mean(axis=1))
    clip, unread = np.concatenate(blocks), len(content.getbuffer()) - content.tell()
    if unread > MAX_UNREAD_BYTES.get(audio.format, unread):
        raise ValueError(f"it must be read to its end, found {unread} bytes behind {len(clip) / source_rate:.2f} s")
    if len(clip) <= source_rate // 80:
        raise ValueError(f"it must hold more than 12.5 ms of sound, found {len(clip)} samples")
    if not np.abs(clip).max() <= MAX_PEAK:  # `not <=` catches NaN too
        raise ValueError(f"it must hold finite samples in [-1, 1], found a peak of {np.abs(clip).max()}")
    if source_rate == sampling_rate:
        return clip
    try:
        import soxr
    except ImportError as error:
        raise ValueError(f"it must be at {sampling_rate} Hz, found {source_rate} Hz; or `pip install soxr`") from error
    return soxr.resample(clip, source_rate, sampling_rate)


def scores_of(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """A softmax, a sigmoid where a clip has any number of labels, or the logits themselves of a regression."""
    if problem_type == "regression":
        return logits
    if problem_type == "multi_label_classification":
        return 1 / (1 + np.exp(-np.maximum(logits, -80)))  # beyond, float32 overflows
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def find_events(logits: np.ndarray, labels: list[str], thresholds: list[float], median_frames: int) -> list[tuple]:
    """Start and end in seconds, label and highest score of each run of frames of 20 ms above the label's threshold."""
    half, found = median_frames // 2, []
    padded = np.pad(scores_of(logits, "multi_label_classification"), ((half, half), (0, 0)), mode="edge")
    scores = np.median(np.lib.stride_tricks.sliding_window_view(padded, median_frames, axis=0), axis=-1)
    heard = np.pad(scores >= thresholds, ((1, 1), (0, 0)))
    for index, label in enumerate(labels):
        for first, stop in np.flatnonzero(np.diff(heard[:, index])).reshape(-1, 2):
            start, end = (
                round(max(0.02 * frame - 0.005, 0), 3) for frame in (first, stop)
            )  # centred 5 ms into its hop
            found.append((start, end, label, scores[first:stop, index].max()))
    return sorted(found, key=lambda event: (event[0], event[2]))


def main(model: str, *files: str, top_k: int = 3) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    labels, sampling_rate = json.loads(metadata["labels"]), int(metadata["sampling_rate"])
    num_refused = 0
    for file in files:
        try:
            clip = read_clip(file, sampling_rate)[None]
        except (OSError, ValueError, soundfile.LibsndfileError) as error:
            num_refused += 1
            print(f"{file}: {error}. Convert it: ffmpeg -i IN -ar {sampling_rate} -ac 1 OUT.wav", file=sys.stderr)
            continue
        inputs = {"input_values": clip, "attention_mask": np.ones(clip.shape, dtype=np.int64)}
        logits = session.run(["logits"], inputs)[0][0]
        if "event_thresholds" in metadata:
            thresholds, median_frames = json.loads(metadata["event_thresholds"]), int(metadata["event_median_frames"])
            events = find_events(logits, labels, thresholds, median_frames)
            found = [f"{label} {start:.2f}-{end:.2f} s {score:.3f}" for start, end, label, score in events]
            print(f"{file}: " + (", ".join(found) or "nothing"))
            continue
        scores = scores_of(logits, metadata["problem_type"])
        best = scores.argsort()[::-1][:top_k]
        print(f"{file}: " + ", ".join(f"{labels[i]} {scores[i]:.3f}" for i in best))
    if num_refused:
        sys.exit(f"{num_refused} of {len(files)} files could not be read.")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
