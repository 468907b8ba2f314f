"""A model of frames and its feature extractor, put together: waveform -> events, and the scores of the whole clip."""

from typing import Any, NamedTuple

import numpy as np
import torch

from .events import HEAREvent, find_events


class HeardEvents(NamedTuple):
    """
    What a model of frames hears in a clip.

    Args:
        events (`list[HEAREvent]`): What is heard when, by the config's thresholds.
        frames (`np.ndarray` of shape `(num_frames, num_labels)`): The probabilities of each frame of 20 ms.
        clip (`np.ndarray` of shape `(num_labels,)`): Those of the clip as a whole.
    """

    events: list[HEAREvent]
    frames: np.ndarray
    clip: np.ndarray


class EventFinder:
    """
    Finds the events of clips.

    Args:
        model (`HEARForAudioFrameClassification`): The model, on any device. It is put into eval mode.
        feature_extractor (`HEARFeatureExtractor`): Its feature extractor.
    """

    def __init__(self, model: Any, feature_extractor: Any):
        self.model, self.feature_extractor = model.eval(), feature_extractor
        config = model.config
        self.labels = [config.id2label[index] for index in range(config.num_labels)]

    @torch.no_grad()
    def __call__(self, waveform: np.ndarray) -> HeardEvents:
        """Reads a mono clip at the model's rate, (num_samples,)."""
        rate, config = self.feature_extractor.sampling_rate, self.model.config
        inputs = self.feature_extractor(waveform, sampling_rate=rate, return_tensors="pt").to(self.model.device)
        outputs = self.model(**inputs)
        frames = outputs.logits[0].float().sigmoid().cpu().numpy()
        events = find_events(frames, self.labels, config.event_thresholds, config.event_median_frames)
        return HeardEvents(events, frames, outputs.clip_logits[0].sigmoid().cpu().numpy())
