"""Preparation of labelled clips as they are read: decoding, augmentation, and labels in numbers."""

from typing import Any

import numpy as np
from datasets import Dataset

from .augmentation import AugmentationArguments, augment, mixup
from .decoded_cache import DecodedCache, as_float
from .decoding import decode_audio
from .labelled import label_feature


def prepare_clips(
    clips: Dataset,
    sampling_rate: int,
    augmentation: AugmentationArguments | None = None,
    cache: DecodedCache | None = None,
) -> Dataset:
    """
    Lets a split of `load_labelled_audio` be decoded as it is read: its rows become `input_values` and `labels`.

    With a `cache` of the same rate each clip is decoded now, if it was not before.
    """
    names, multi_label = label_feature(clips)
    if cache is not None:
        cache.fill((row["audio"] for row in clips.with_format(None).select_columns("audio")), len(clips))
    return clips.with_transform(Preparation(sampling_rate, names.num_classes, multi_label, augmentation, cache))


class Preparation:
    """Decodes a batch of the data set, augments it where `augmentation` is given, and encodes its labels."""

    def __init__(
        self,
        sampling_rate: int,
        num_labels: int,
        multi_label: bool,
        augmentation: AugmentationArguments | None = None,
        cache: DecodedCache | None = None,
    ):
        self.sampling_rate, self.num_labels, self.multi_label = sampling_rate, num_labels, multi_label
        self.augmentation, self.cache = augmentation, cache

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        waveforms = [self.decode(audio) for audio in batch["audio"]]
        labels = self.multi_hot(batch["label"]) if self.multi_label else np.asarray(batch["label"])
        if self.augmentation is not None:
            waveforms = [augment(waveform, self.sampling_rate, self.augmentation) for waveform in waveforms]
            if self.augmentation.mixup_alpha > 0:
                targets = labels if self.multi_label else self.multi_hot([[label] for label in labels])
                waveforms, labels = mixup(waveforms, targets, self.augmentation.mixup_alpha)
        return {"input_values": waveforms, "labels": list(labels)}

    def decode(self, audio: dict[str, Any]) -> np.ndarray:
        samples = None if self.cache is None else self.cache.get(audio)
        return decode_audio(audio, self.sampling_rate) if samples is None else as_float(samples)

    def multi_hot(self, labels: list[list[int]]) -> np.ndarray:
        targets = np.zeros((len(labels), self.num_labels), dtype=np.float32)
        for row, indices in zip(targets, labels, strict=True):
            row[indices] = 1.0
        return targets
