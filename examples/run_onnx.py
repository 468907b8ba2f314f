"""Names the sounds in audio files with an exported model, without PyTorch; of a model of frames also when.

    python run_onnx.py onnx/model_quantized.onnx one.wav two.flac

Needs `pip install onnxruntime soundfile`, for a file of `export_openvino.py` openvino in place of onnxruntime, and
soxr for files at another rate than the model's.
"""

import io
import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

MAX_PEAK, MAX_DECODED = 16, 2**29  # of a sample, and numbers in all channels, or at the model's rate
# Where one of several joined files begins: an MP3 file that says its length, a link of Ogg, a FLAC file.
INFO = rb"(?s)\xff[\xe2-\xff][\x10-\xef].(?:..)?(?:.{9}|.{17}|.{32})(?:Xing|Info)\0{3}[\1\3\5\7\t\v\r\x0f]"
START = re.compile(INFO + rb"|OggS\0\x02|fLaC[\0\x80]\0\0\x22")
TAG = rb"(?s)ID3[\2-\4]..([\0-\x7f]{4})|APETAGEX.{4}(.{4}).{7}[ \xa0].{8}|(?:TAG.{125}|(?<!\0)\0{1500,})(?=ID3|\Z)"
# libsndfile's notes of a declared length that is not the file's, and of where sound follows that of a WAV file.
WRONG_LENGTH = r"(?:data|SSND|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)"
BEHIND = r"(?:Unknown chunk marker \(\w+\)|Have 0 marker) at position (\d+)(?:\. Exiting| \()"


class ForwardFile(soundfile.SoundFile):
    """A file that soundfile reads without a seek after each block: some decoders do not survive it."""

    def seekable(self) -> bool:
        return False


class EndlessBytes(io.BytesIO):
    """Bytes that seem to end far away, so that libsndfile estimates no length from their number."""

    def tell(self) -> int:
        return super().tell() + 2**42 * (super().tell() == len(self.getbuffer()))


def check(holds: bool, must: str, found: object) -> None:
    if not holds:
        raise ValueError(f"it must {must}, found {found}")


def untagged(content: bytes, anywhere: bool) -> bytes:
    """The content without ID3 and APE tags, which say how long they are, at its start or anywhere; and final zeros."""
    pieces, place, pattern = [], 0, re.compile(TAG)
    while tag := (pattern.search if anywhere else pattern.match)(content, place):
        pieces.append(content[place : tag.start()])
        id3, ape = tag.groups(b"")
        place = tag.end() + sum(byte << 7 * i for i, byte in enumerate(id3[::-1])) + int.from_bytes(ape, "little")
    return b"".join([*pieces, content[place:]])


def mended(content: bytes) -> bytes:
    """The content of a file, with the length that a crashed recorder of WAV or AU files never wrote."""
    if content[:4] in (b".snd", b"dns.") and content[8:12] == bytes(4):
        return content[:8] + b"\xff" * 4 + content[12:]
    place = content.find(b"data" + bytes(4)) + 8
    if content[:4] != b"RIFF" or place < 12 or content[place : place + 4].strip().isalnum():  # another chunk
        return content
    size = (len(content) - place).to_bytes(4, "little")
    return content[:4] + size + content[8 : place - 4] + size + content[place:]


def decode(content: bytes, sampling_rate: int, held: int) -> tuple[np.ndarray, int, float, np.ndarray]:
    """The average of a file's channels, their rate, the seconds that it declares, and both powers."""
    content = mended(untagged(content, anywhere=True) if START.match(content) else content)
    is_endless = content[:1] == b"\xff" and not START.match(content)
    file, blocks, num_frames, powers = (EndlessBytes if is_endless else io.BytesIO)(content), [], 0, np.zeros(2)
    with ForwardFile(file) as audio:
        rate, declared = audio.samplerate, 0 if is_endless or audio.frames >= 2**40 else audio.frames
        check(1_000 <= rate <= 768_000, "have a rate of 1 to 768 kHz", f"{rate} Hz")
        while not blocks or len(blocks[-1]):
            count = round((held + max(declared, num_frames)) * max(audio.channels, sampling_rate / rate))
            check(count <= MAX_DECODED, f"hold at most {MAX_DECODED} numbers in all channels", count)
            frames = audio.read(1152, dtype="float32", always_2d=True)  # as an MPEG frame, not to decode beyond it
            blocks.append(frames.mean(axis=1))
            if audio.channels > 1:
                powers += np.vdot(frames, frames) / audio.channels, np.vdot(blocks[-1], blocks[-1])
            num_frames += len(frames)
        behind = [(len(content), place) for place in re.findall(BEHIND, audio.extra_info)]
        said, there = map(int, [(1, 1), *behind, *re.findall(WRONG_LENGTH, audio.extra_info)][-1])
        declared *= said / there if 0 < there < said < 2**31 - 2**16 else 1  # more stands for "unknown"
        padding = 3456 / max(1, num_frames) * len(content)  # of an MP3 file: three frames or so
        most = {"MP3": padding, "OGG": 0, "FLAC": 0, "AU": 0}.get(audio.format, len(content))
    check(len(content) - file.tell() <= most, "be read to its end", f"more behind {num_frames / rate:.2f} s")
    return np.concatenate(blocks), rate, declared / rate, powers


def read_clip(file: str, sampling_rate: int) -> np.ndarray:
    """Reads a file as one channel at this rate, to its end or not at all; says where it was cut short."""
    check(Path(file).is_file() and Path(file).stat().st_size <= 8 * MAX_DECODED, "be a file of at most 4 GiB", "none")
    content, parts = untagged(Path(file).read_bytes(), anywhere=False), []
    starts = [found.start() for found in START.finditer(content) if found.start() and content[0] in b"\xffOf"]
    for start, stop in pairwise([0, *starts, len(content)]):
        parts.append(decode(content[start:stop], sampling_rate, sum(len(part[0]) for part in parts)))
    clips, rates, declared, powers = zip(*parts, strict=True)
    clip, rate, declared, powers = np.concatenate(clips), rates[0], sum(declared), sum(powers)
    seconds, peak = len(clip) / rate, np.abs(clip).max(initial=0)
    check({*rates} == {rate}, f"stay at {rate} Hz", "a change")
    check(seconds > 1 / 80, "hold more than 12.5 ms of sound", f"{len(clip)} samples")
    check(peak <= MAX_PEAK, "hold finite samples in [-1, 1]", f"a peak of {peak}")  # false of NaN too
    if seconds < 0.99 * declared - 0.1:
        print(f"{file!a} was cut short: it has {seconds:.2f} of the {declared:.2f} s it declares", file=sys.stderr)
    if powers[1] < 1e-4 * powers[0]:
        print(f"{file!a} is silent where its channels are averaged, as they cancel one another", file=sys.stderr)
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


def find_events(logits: np.ndarray, labels: list[str], metadata: dict[str, str]) -> list[tuple]:
    """Start and end in seconds, label and highest score of each run of frames of 20 ms above the label's threshold."""
    thresholds, median_frames = json.loads(metadata["event_thresholds"]), int(metadata["event_median_frames"])
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
    labels, sampling_rate, num_refused = json.loads(metadata["labels"]), int(metadata["sampling_rate"]), 0
    for file in files:
        try:
            clip = read_clip(file, sampling_rate)[None]
            only = int(metadata.get("num_samples", clip.size))
            check(clip.size == only, f"hold {only} samples, the model's only length", clip.size)
        except (OSError, ValueError, soundfile.LibsndfileError) as error:
            num_refused += 1
            reason = getattr(error, "error_string", error)  # of libsndfile, which knows no name of bytes
            hint = f"ffmpeg -i IN -ar {sampling_rate} -ac 1 OUT.wav"
            print(printable(f"{file}: {reason}. Convert it: {hint}"), file=sys.stderr)
            continue
        logits = logits_of({"input_values": clip, "attention_mask": np.ones(clip.shape, dtype=np.int64)})[0]
        if "event_thresholds" in metadata:
            events = find_events(logits, labels, metadata)
            found = [f"{label} {start:.2f}-{end:.2f} s {score:.3f}" for start, end, label, score in events]
        else:
            scores = scores_of(logits, metadata["problem_type"])
            found = [f"{labels[i]} {scores[i]:.3f}" for i in scores.argsort()[::-1][:top_k]]
        print(printable(f"{file}: " + (", ".join(found) or "nothing")))
    if num_refused:
        sys.exit(f"{num_refused} of {len(files)} files could not be read.")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 2 else __doc__)
