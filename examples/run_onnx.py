"""Names the sounds in audio files with an exported model, without PyTorch; of a model of frames also when.

    python run_onnx.py onnx/model_quantized.onnx one.wav two.flac

Needs `pip install onnxruntime soundfile`, for a file of `export_openvino.py` openvino in place of onnxruntime, and
soxr for files at another rate than the model's.
"""

import io
import json
import re
import struct
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

MAX_PEAK, MAX_DECODED = 16, 2**29  # of a sample, and numbers in all channels, or at the model's rate
BLOCK_FRAMES = 1152  # as an MPEG frame: a larger block may decode further than it returns
MAX_UNREAD_BYTES = {"MP3": 4096, "OGG": 0, "FLAC": 0}  # behind the audio: tags, and what pads the last frames
# Where one of several files that are joined begins: an MP3 file, a link of Ogg, a FLAC file.
START = re.compile(
    rb"\xff[\xe2-\xff][\x10-\xef].(?:.{9}|.{17}|.{32})(?:Xing|Info)|OggS\0\x02|fLaC[\0\x80]\0\0\x22", re.DOTALL
)
# libsndfile's note of a declared length that is not the file's.
WRONG_LENGTH = re.compile(r"(?:data|SSND|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)")


class ForwardFile(soundfile.SoundFile):
    """A file that soundfile reads without a seek after each block: some decoders do not survive it."""

    def seekable(self) -> bool:
        return False


def check(holds: bool, must: str, found: object) -> None:
    if not holds:
        raise ValueError(f"it must {must}, found {found}")


def mended(content: bytes) -> bytes:
    """The content of a file, with the length that a crashed recorder of WAV or AU files never wrote."""
    if content[:4] == b".snd" and content[8:12] == bytes(4):
        return content[:8] + b"\xff" * 4 + content[12:]
    place = 12
    while content[:4] == b"RIFF" and place + 8 < len(content):
        name, length = struct.unpack_from("<4sI", content, place)
        place += 8 + length + length % 2
        if name == b"data" and length == 0 and not content[place : place + 4].strip().isalnum():  # no other chunk
            size = struct.pack("<I", len(content) - place)
            return content[:4] + size + content[8 : place - 4] + size + content[place:]
    return content


def declared_frames(audio: soundfile.SoundFile, num_frames: int, content: bytes) -> float:
    """How many frames a file of so many declares; 0 where that is not known."""
    if audio.format == "MP3":
        return audio.frames if re.search(b"Xing|Info", content) else 0
    declared, held = map(int, (WRONG_LENGTH.findall(audio.extra_info) or [(1, 1)])[-1])
    return num_frames * declared / held if held and declared < 2**31 - 2**16 else 0  # more stands for "unknown"


def decode(content: bytes, sampling_rate: int, held: int = 0) -> tuple[np.ndarray, int, float, int]:
    """The averaged channels of a file, their rate, the seconds it declares, and how many bytes are left unread."""
    file, blocks, num_frames = io.BytesIO(mended(content)), [], 0
    with ForwardFile(file) as audio:
        rate, declared = audio.samplerate, audio.frames if audio.frames < 2**40 else 0
        check(1_000 <= rate <= 768_000, "have a rate of 1 to 768 kHz", f"{rate} Hz")
        while not blocks or len(blocks[-1]):
            count = round((held + max(declared, num_frames)) * max(audio.channels, sampling_rate / rate))
            check(count <= MAX_DECODED, f"hold at most {MAX_DECODED} numbers in all channels", count)
            blocks.append(audio.read(BLOCK_FRAMES, dtype="float32", always_2d=True).mean(axis=1))
            num_frames += len(blocks[-1])
        declared = declared_frames(audio, num_frames, file.getvalue()) / rate
    unread = len(file.getbuffer()) - file.tell()
    return np.concatenate(blocks), rate, declared, unread if unread > MAX_UNREAD_BYTES.get(audio.format, unread) else 0


def read_clip(file: str, sampling_rate: int) -> np.ndarray:
    """Reads a file as one channel at this rate, to its end or not at all; says where it was cut short."""
    check(Path(file).is_file() and Path(file).stat().st_size <= 8 * MAX_DECODED, "be a file of at most 4 GiB", "none")
    content = Path(file).read_bytes()
    starts = [0, *[start.start() for start in START.finditer(content)][1:], len(content)]
    whole = decode(content, sampling_rate) if len(starts) == 2 or content[:4] != b"fLaC" else None
    # Of joined files libsndfile reads the first alone, or none where they are FLAC.
    parts = [whole] if whole and not whole[-1] else []
    for start, stop in pairwise(starts if not parts else []):
        parts.append(decode(content[start:stop], sampling_rate, sum(len(part[0]) for part in parts)))
    clip, rate, declared = np.concatenate([part[0] for part in parts]), parts[0][1], sum(part[2] for part in parts)
    seconds, unread = len(clip) / rate, sum(part[-1] for part in parts)
    check(not unread, "be read to its end", f"{unread} bytes behind {seconds:.2f} s")
    check({part[1] for part in parts} == {rate}, f"stay at {rate} Hz", "a change")
    check(seconds > 1 / 80, "hold more than 12.5 ms of sound", f"{len(clip)} samples")
    peak = np.abs(clip).max()
    check(peak <= MAX_PEAK, "hold finite samples in [-1, 1]", f"a peak of {peak}")  # false of NaN too
    if seconds < 0.99 * declared - 0.1:
        print(f"{file!a} was cut short: it has {seconds:.2f} of the {declared:.2f} s it declares", file=sys.stderr)
    if rate == sampling_rate:
        return clip
    try:
        import soxr
    except ImportError as error:
        raise ValueError(f"it must be at {sampling_rate} Hz, found {rate} Hz; or `pip install soxr`") from error
    return soxr.resample(clip, rate, sampling_rate)


def printable(text: str) -> str:  # for the terminal, which no name may control
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


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
            start, end = (round(max(0.02 * frame - 0.005, 0), 3) for frame in (first, stop))  # centred at 5 ms
            found.append((start, end, label, scores[first:stop, index].max()))
    return sorted(found, key=lambda event: (event[0], event[2]))


def open_model(path: str) -> tuple[Callable[[dict], np.ndarray], dict[str, str]]:
    """What gives the logits of inputs, and the metadata of the file."""
    if path.endswith(".xml"):
        import openvino

        model = openvino.Core().read_model(path)
        metadata = json.loads(model.get_rt_info("hear_hf").astype(str)) if model.has_rt_info("hear_hf") else {}
        precision = {"INFERENCE_PRECISION_HINT": metadata["precision"]} if "precision" in metadata else {}
        compiled = openvino.compile_model(model, "CPU", precision)
        return lambda inputs: compiled(inputs)["logits"], metadata
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["logits"], inputs)[0], session.get_modelmeta().custom_metadata_map


def main(model: str, *files: str, top_k: int = 3) -> None:
    try:
        logits_of, metadata = open_model(model) if Path(model).is_file() else (None, {})
    except ImportError as error:
        sys.exit(f"{model} needs {error.name}, not installed here: pip install {error.name}")
    except Exception as error:  # each runtime has its own
        sys.exit(f"The model must be an exported file, found one that cannot be read: {printable(str(error))[:300]}")
    if "labels" not in metadata:
        sys.exit(f"The model must be an exported file, such as onnx/model_quantized.onnx, found no labels in {model}")
    labels, sampling_rate = json.loads(metadata["labels"]), int(metadata["sampling_rate"])
    num_refused = 0
    for file in files:
        try:
            clip = read_clip(file, sampling_rate)[None]
            only = int(metadata.get("num_samples", clip.size))
            check(clip.size == only, f"hold {only} samples, the model's only length", clip.size)
        except (OSError, ValueError, soundfile.LibsndfileError) as error:
            num_refused += 1
            reason = getattr(error, "error_string", error)  # of libsndfile, which knows no name of bytes
            hint = f"Convert it: ffmpeg -i IN -ar {sampling_rate} -ac 1 OUT.wav"
            print(printable(f"{file}: {reason}. {hint}"), file=sys.stderr)
            continue
        inputs = {"input_values": clip, "attention_mask": np.ones(clip.shape, dtype=np.int64)}
        logits = logits_of(inputs)[0]
        if "event_thresholds" in metadata:
            thresholds, frames = json.loads(metadata["event_thresholds"]), int(metadata["event_median_frames"])
            events = find_events(logits, labels, thresholds, frames)
            found = [f"{label} {start:.2f}-{end:.2f} s {score:.3f}" for start, end, label, score in events]
        else:
            scores = scores_of(logits, metadata["problem_type"])
            found = [f"{labels[i]} {scores[i]:.3f}" for i in scores.argsort()[::-1][:top_k]]
        print(printable(f"{file}: " + (", ".join(found) or "nothing")))
    if num_refused:
        sys.exit(f"{num_refused} of {len(files)} files could not be read.")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
