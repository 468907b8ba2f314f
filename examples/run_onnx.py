"""Names the sounds in audio files with a file of `export_onnx.py`, without PyTorch.

    python run_onnx.py model.onnx one.wav two.flac

Needs `pip install onnxruntime soundfile`, and soxr for files at another rate than the model's.
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile


def read_clip(file: str, sampling_rate: int) -> np.ndarray:
    """Reads a file as one channel at this rate."""
    samples, source_rate = soundfile.read(file, dtype="float32", always_2d=True)
    clip = samples.mean(axis=1)
    if source_rate == sampling_rate:
        return clip
    try:
        import soxr
    except ImportError:
        sys.exit(f"{file} must be at {sampling_rate} Hz, found {source_rate} Hz: convert it, or `pip install soxr`.")
    return soxr.resample(clip, source_rate, sampling_rate)


def scores_of(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """A softmax, a sigmoid where a clip has any number of labels, or the logits themselves of a regression."""
    if problem_type == "regression":
        return logits
    if problem_type == "multi_label_classification":
        return 1 / (1 + np.exp(-np.maximum(logits, -80)))  # beyond, float32 overflows
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def main(model: str, *files: str, top_k: int = 3) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    labels, sampling_rate = json.loads(metadata["labels"]), int(metadata["sampling_rate"])
    for file in files:
        clip = read_clip(file, sampling_rate)[None]
        if clip.shape[1] <= sampling_rate // 80:
            sys.exit(f"{file} must hold more than 12.5 ms of sound, found {clip.shape[1]} samples.")
        inputs = {"input_values": clip, "attention_mask": np.ones(clip.shape, dtype=np.int64)}
        scores = scores_of(session.run(None, inputs)[0][0], metadata["problem_type"])
        best = scores.argsort()[::-1][:top_k]
        print(f"{file}: " + ", ".join(f"{labels[i]} {scores[i]:.3f}" for i in best))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
