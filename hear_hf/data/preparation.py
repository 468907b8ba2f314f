"""Preparation of labelled clips as they are read: decoding, augmentation, and labels in numbers."""

import numpy as np
from datasets import Dataset

from .augmentation import AugmentationArguments, augment, mixup
from .decoding import decode_audio
from .labelled import label_feature


def prepare_clips(clips: Dataset, sampling_rate: int, augmentation: AugmentationArguments | None = None) -> Dataset:
    """Lets a split of `load_labelled_audio` be decoded as it is read: its rows become `input_values` and `labels`."""
    names, multi_label = label_feature(clips)
    return clips.with_transform(Preparation(sampling_rate, names.num_classes, multi_label, augmentation))


class Preparation:
    """Decodes a batch of the data set, augments it where `augmentation` is given, and encodes its labels."""

    def __init__(
        self, sampling_rate: int, num_labels: int, multi_label: bool, augmentation: AugmentationArguments | None = None
    ):
        self.sampling_rate, self.num_labels, self.multi_label = sampling_rate, num_labels, multi_label
        self.augmentation = augmentation

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        waveforms = [decode_audio(audio, self.sampling_rate) for audio in batch["audio"]]
        labels = self.multi_hot(batch["label"]) if self.multi_label else np.asarray(batch["label"])
        if self.augmentation is not None:
            waveforms = [augment(waveform, self.sampling_rate, self.augmentation) for waveform in waveforms]
            if self.augmentation.mixup_alpha > 0:
                targets = labels if self.multi_label else self.multi_hot([[label] for label in labels])
                waveforms, labels = mixup(waveforms, targets, self.augmentation.mixup_alpha)
        return {"input_values": waveforms, "labels": list(labels)}

    def multi_hot(self, labels: list[list[int]]) -> np.ndarray:
        targets = np.zeros((len(labels), self.num_labels), dtype=np.float32)
        for row, indices in zip(targets, labels, strict=True):
            row[indices] = 1.0
        return targets
