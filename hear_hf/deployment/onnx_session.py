"""Exported files in ONNX Runtime: how they are run, and how far their logits are from PyTorch's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from ..modeling_hear import HEARForAudioClassification, HEARForAudioFrameClassification

CHECKED_SECONDS = ((0.1, 1.0, 3.3), (6.0, 6.1, 0.02), (11.0, 35.0))  # one ragged batch each
Runner = Callable[[dict[str, np.ndarray]], np.ndarray]  # the graph's inputs by name -> its logits


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Opens an exported file, to run on as many CPU threads as PyTorch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def runner(path: Path) -> Runner:
    """An exported file, ready to run."""
    session = open_session(path)
    return lambda inputs: session.run(["logits"], inputs)[0]


def model_inputs(input_values: np.ndarray, attention_mask: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The graph's inputs by name and in its types; without a mask every sample is valid."""
    mask = np.ones_like(input_values) if attention_mask is None else attention_mask
    return {"input_values": input_values.astype(np.float32), "attention_mask": mask.astype(np.int64)}


def ragged_batch(seconds: tuple[float, ...], sampling_rate: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise of these lengths with a slow rise, padded with more noise: waveforms and mask."""
    generator = np.random.default_rng(seed)
    lengths = [int(sampling_rate * length) for length in seconds]
    waveform = generator.standard_normal((len(lengths), max(lengths)), dtype=np.float32)
    waveform *= np.linspace(0.01, 0.3, max(lengths), dtype=np.float32)
    return waveform, np.arange(max(lengths)) < np.array(lengths)[:, None]


@torch.no_grad()
def largest_difference(
    run: Runner,
    model: HEARForAudioClassification | HEARForAudioFrameClassification,
    batches: tuple[tuple[float, ...], ...] = CHECKED_SECONDS,
) -> float:
    """
    Compares logits with PyTorch's over ragged batches, and over their longest clips alone; of frames, the valid ones.

    Args:
        run (`Runner`): An exported file.
        model (`HEARForAudioClassification`): The model to compare with.
        batches (`tuple`, *optional*): The seconds of the clips of each batch.

    Returns:
        `float`: The largest difference in units of the largest logit, or of 1 where all are smaller; NaN if any is.
    """
    differences = []
    for seed, seconds in enumerate(batches):
        waveform, mask = ragged_batch(seconds, model.config.sampling_rate, seed)
        outputs = model(torch.from_numpy(waveform), torch.from_numpy(mask))
        expected, frame_mask = outputs.logits.numpy(), getattr(outputs, "frame_mask", None)
        longest = slice(row := int(mask.sum(1).argmax()), row + 1)
        for rows in (slice(None), longest):
            logits = run(model_inputs(waveform[rows], mask[rows]))
            valid = ... if frame_mask is None else frame_mask[rows].numpy()
            difference = np.abs(logits - expected[rows])[valid].max()
            differences.append(difference / max(1.0, np.abs(expected[rows][valid]).max()))
    return float(np.max(differences))
