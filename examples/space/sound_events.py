"""Which labels are heard in a clip, and when: by a HEAR's frames, or a classifier on windows sliding over the clip."""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from huggingface_hub import HfApi
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
)

from audio.visitors import SILENT_PEAK
from events import DEFAULT_THRESHOLD, frame_boundaries, median_filter

try:
    import hear_hf  # noqa: F401 (registers HEAR with the Auto classes)

    HEAR_HF_INSTALLED = True
except ImportError:
    HEAR_HF_INSTALLED = False

MAX_MODEL_BYTES = 500_000_000  # of a visitor's model
WINDOWS_PER_BATCH = 16
HOPS_PER_WINDOW = 4
AUTO_CLASSES = {
    "HEARForAudioClassification": AutoModelForAudioClassification,
    "HEARForAudioFrameClassification": AutoModelForAudioFrameClassification,
}


class Classifier:
    """
    A HEAR classifier: waveforms in, one score per label out.

    Args:
        name (`str`):
            A folder, or a repository of the Hub, at one revision as `OWNER/NAME@REVISION`.
        configured (`bool`, *optional*, defaults to `False`):
            Whether the name comes from whoever runs the app, not from a visitor. Only then, and only where the package
            `hear_hf` is absent, is the code run that the checkpoint carries; only then is the Hub token used, and
            only then may a repository's files take more than `MAX_MODEL_BYTES`.

    Raises:
        `ValueError`: There is no HEAR classifier of that name, or it must not be loaded.
    """

    def __init__(self, name: str, configured: bool = False):
        if not configured and not HEAR_HF_INSTALLED:
            raise ValueError(
                f"To load {name}, `hear_hf` must be installed here: the code that a visitor's model carries is never "
                "run."
            )
        source = {"trust_remote_code": not HEAR_HF_INSTALLED, "token": None if configured else False}
        place, revision = (name, None) if os.path.isdir(name) else _split_revision(name)
        try:
            if not configured and not os.path.isdir(name):
                revision = _revision_of_bounded_size(place, revision)
            source |= {"revision": revision or "main"}
            self.config = AutoConfig.from_pretrained(place, **source)
            _check_config(self.config)
            self.feature_extractor = AutoFeatureExtractor.from_pretrained(place, **source)
            if self.feature_extractor.sampling_rate != self.config.sampling_rate:
                raise ValueError(
                    f"its `sampling_rate` must be the same in config.json and preprocessor_config.json, found "
                    f"{self.config.sampling_rate} and {self.feature_extractor.sampling_rate} Hz"
                )
            auto_class = AUTO_CLASSES[self.config.architectures[0]]
            self.model = auto_class.from_pretrained(place, use_safetensors=True, **source).eval()
        except Exception as error:  # a foreign checkpoint can fail in any way
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{name} must be a HEAR classifier, and could not be loaded as one: {reason}") from error
        self.name = name
        self.sampling_rate = self.feature_extractor.sampling_rate
        self.labels = [self.config.id2label[i] for i in range(self.config.num_labels)]
        self.has_frames = auto_class is AutoModelForAudioFrameClassification
        self.has_thresholds = self.has_frames and self.config.event_thresholds is not None
        self.thresholds = np.full(len(self.labels), DEFAULT_THRESHOLD)
        if self.has_thresholds:
            self.thresholds = np.array(self.config.event_thresholds)

    @torch.inference_mode()
    def hear_frames(self, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of a clip, (num_labels,), and of each of its frames of 20 ms, (num_frames, num_labels)."""
        inputs = self.feature_extractor(clip, sampling_rate=self.sampling_rate, return_tensors="pt")
        outputs = self.model(**inputs)
        return outputs.clip_logits[0].sigmoid().numpy(), outputs.logits[0].float().sigmoid().numpy()

    @torch.inference_mode()
    def __call__(self, clips: list[np.ndarray]) -> np.ndarray:
        """Scores in [0, 1] of clips of any lengths, (num_clips, num_labels); of a single-label model they sum to 1."""
        inputs = self.feature_extractor(clips, sampling_rate=self.sampling_rate, padding=True, return_tensors="pt")
        logits = self.model(**inputs).logits.float()
        multi_label = self.config.problem_type == "multi_label_classification"
        return (logits.sigmoid() if multi_label else logits.softmax(dim=-1)).numpy()


def _split_revision(name: str) -> tuple[str, str | None]:
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _revision_of_bounded_size(repository: str, revision: str | None) -> str:
    """The commit whose files were found small enough, so that no other is loaded."""
    info = HfApi(token=False).model_info(repository, revision=revision, files_metadata=True)
    if any(file.rfilename == "adapter_config.json" for file in info.siblings or []):
        raise ValueError("it must be a whole model, found an adapter, which would load another model of any size")
    files = [file for file in info.siblings or [] if file.rfilename.endswith((".json", ".safetensors"))]
    size = sum(math.inf if file.size is None else file.size for file in files)
    if size > MAX_MODEL_BYTES:
        raise ValueError(f"its files must take at most {MAX_MODEL_BYTES / 1e6:.0f} MB, found: {size / 1e6:.0f} MB")
    return str(info.sha)


def _check_config(config) -> None:
    architectures = config.architectures or []
    if config.model_type != "hear" or not architectures or architectures[0] not in AUTO_CLASSES:
        raise ValueError(f"its config names a {config.model_type!r} model, architectures {architectures}")
    if config.problem_type == "regression":
        raise ValueError("its `problem_type` is regression, and its outputs are no scores of labels")
    is_frames_model = AUTO_CLASSES[architectures[0]] is AutoModelForAudioFrameClassification
    if is_frames_model and len(config.event_thresholds or config.id2label) != config.num_labels:
        raise ValueError(
            f"its `event_thresholds` must be one for each of {config.num_labels} labels, found "
            f"{len(config.event_thresholds)}"
        )


@dataclass
class Hearing:
    """The scores of a clip and of its windows.

    `clip_scores` (num_labels,) are of the whole clip, `scores` (num_windows, num_labels) of its windows, 0 where one
    is silent, or of its frames. A window counts for the time around its middle: window i from `edges[i]` to
    `edges[i + 1]`, in seconds. `thresholds` (num_labels,) are the scores from which the model says that it hears a
    label.
    """

    waveform: np.ndarray
    sampling_rate: int
    labels: list[str]
    clip_scores: np.ndarray
    scores: np.ndarray
    edges: np.ndarray
    thresholds: np.ndarray

    def segments(self, strictness: float = 0.5) -> list[tuple[float, float, str, float]]:
        """
        Start and end in seconds, label and mean score of each stretch where a label reaches its threshold.

        Args:
            strictness (`float`, *optional*, defaults to 0.5): Multiplies the odds of the model's own thresholds by its
                own: 0.5 leaves them as they are, and those of 0.5 become it.
        """
        found = []
        pro, contra = self.thresholds * strictness, (1 - self.thresholds) * (1 - strictness)
        for label, threshold, scores in zip(self.labels, pro / (pro + contra), self.scores.T, strict=True):
            heard = np.concatenate([[False], scores >= threshold, [False]])
            for first, stop in np.flatnonzero(heard[1:] != heard[:-1]).reshape(-1, 2):
                found.append((self.edges[first], self.edges[stop], label, scores[first:stop].mean()))
        return sorted(found)


def hear(
    classifier: Classifier,
    waveform: np.ndarray,
    window_seconds: float,
    track: Callable[[Iterable], Iterable] = iter,
) -> Hearing:
    """
    Classifies a clip and its frames or, of a model without them, the windows that slide over it by a quarter of their
    length.

    Args:
        classifier (`Classifier`): The model.
        waveform (`np.ndarray` of shape `(num_samples,)`): The clip, at the classifier's rate.
        window_seconds (`float`): Length of a window; the last one may be shorter.
        track (`Callable`, *optional*): Wraps the loop over batches, to show progress.
    """
    rate = classifier.sampling_rate
    if classifier.has_frames:
        clip_scores, scores = classifier.hear_frames(waveform)
        scores = median_filter(scores, classifier.config.event_median_frames)
        edges = frame_boundaries(len(scores))
        edges[-1] = len(waveform) / rate
        return Hearing(waveform, rate, classifier.labels, clip_scores, scores, edges, classifier.thresholds)
    length = round(window_seconds * rate)
    hop = length // HOPS_PER_WINDOW
    num_windows = 1 + max(0, math.ceil((len(waveform) - length) / hop))
    starts = hop * np.arange(num_windows)

    scores = np.zeros((num_windows, len(classifier.labels)), dtype=np.float32)
    for first in track(range(0, num_windows, WINDOWS_PER_BATCH)):
        batch = {i: waveform[starts[i] : starts[i] + length] for i in range(num_windows)[first:][:WINDOWS_PER_BATCH]}
        audible = {i: window for i, window in batch.items() if np.abs(window).max() >= SILENT_PEAK}
        if audible:
            scores[list(audible)] = classifier(list(audible.values()))
    edges = np.concatenate([[0], starts[1:] + (length - hop) / 2, [len(waveform)]]) / rate
    clip_scores = classifier([waveform])[0]
    return Hearing(waveform, rate, classifier.labels, clip_scores, scores, edges, classifier.thresholds)
