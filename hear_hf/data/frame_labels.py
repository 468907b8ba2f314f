"""Preparation of annotated recordings as they are read: decoding, a random crop, labels of frames or of clips."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset

from ..events import ENCODER_FRAME_SECONDS, FIRST_FRAME_SECONDS
from ..frames_hear import num_encoder_frames
from .annotated import label_names
from .decoding import decode_audio


def frame_labels(events: list[dict[str, Any]], num_frames: int, num_labels: int) -> np.ndarray:
    """1 for each label of the frames whose centre lies in one of its events, and of one frame at least: (n, L)."""
    labels = np.zeros((num_frames, num_labels), dtype=np.float32)
    for event in events:
        first, stop = (
            int(np.ceil((event[side] - FIRST_FRAME_SECONDS) / ENCODER_FRAME_SECONDS)) for side in ("start", "end")
        )
        first = min(max(first, 0), num_frames - 1)
        labels[first : max(stop, first + 1), event["label"]] = 1.0
    return labels


def prepare_recordings(
    recordings: Dataset, sampling_rate: int, crop_seconds: float | None = None, weak_labels: bool = False
) -> Dataset:
    """
    Lets a split of `load_annotated_audio` be decoded as it is read: its rows become `input_values` and `labels`.

    Args:
        recordings (`Dataset`): The split.
        sampling_rate (`int`): The model's, in Hz.
        crop_seconds (`float`, *optional*): Read a random crop of this length of longer recordings.
        weak_labels (`bool`, *optional*, defaults to `False`): Whether labels are of the clips `(num_labels,)`, not of
            their frames `(num_frames, num_labels)`; a split without events has no others.
    """
    preparation = FramePreparation(sampling_rate, len(label_names(recordings)), crop_seconds, weak_labels)
    return recordings.with_transform(preparation)


class FramePreparation:
    """Decodes a batch of the data set, crops it where asked for, and makes its labels."""

    def __init__(self, sampling_rate: int, num_labels: int, crop_seconds: float | None, weak_labels: bool):
        self.sampling_rate, self.num_labels = sampling_rate, num_labels
        self.crop_seconds, self.weak_labels = crop_seconds, weak_labels

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        known = batch["events"] if "events" in batch else batch["label"]
        pairs = [self.prepare(audio, of_clip) for audio, of_clip in zip(batch["audio"], known, strict=True)]
        return {"input_values": [clip for clip, _ in pairs], "labels": [labels for _, labels in pairs]}

    def prepare(self, audio: dict[str, Any], known: list) -> tuple[np.ndarray, np.ndarray]:
        waveform = decode_audio(audio, self.sampling_rate)
        if known and not isinstance(known[0], dict):  # labels of a clip that has no events
            return waveform, self.clip_labels(known)
        waveform, events = self.crop(waveform, known)
        if self.weak_labels:
            return waveform, self.clip_labels([event["label"] for event in events])
        num_frames = num_encoder_frames(len(waveform), self.sampling_rate // 100)
        return waveform, frame_labels(events, num_frames, self.num_labels)

    def clip_labels(self, found: list[int]) -> np.ndarray:
        labels = np.zeros(self.num_labels, dtype=np.float32)
        labels[found] = 1.0
        return labels

    def crop(self, waveform: np.ndarray, events: list[dict[str, Any]]) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """A random part of a longer recording, and the events in it, from its own start."""
        length = None if self.crop_seconds is None else round(self.crop_seconds * self.sampling_rate)
        if length is None or len(waveform) <= length:
            return waveform, events
        start = int(torch.randint(len(waveform) - length + 1, ()))
        first, seconds = start / self.sampling_rate, length / self.sampling_rate
        moved = [event | {"start": event["start"] - first, "end": event["end"] - first} for event in events]
        inside = [event for event in moved if event["end"] > 0 and event["start"] < seconds]
        return waveform[start : start + length], inside
