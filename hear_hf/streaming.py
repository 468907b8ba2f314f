"""Classification of live audio: blocks of samples -> results of sliding windows, and a decision on the whole."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from .feature_extraction_hear import HEARFeatureExtractor
from .frame_head_hear import join_terms, pooling_terms
from .modeling_hear import HEARForAudioClassification, HEARForAudioFrameClassification
from .scores import scores_of


@dataclass(frozen=True)
class HEARStreamResult:
    """
    Result of the model for a stretch of a stream.

    Args:
        start (`float`): Start of the stretch, in seconds from the beginning of the stream.
        end (`float`): End of the stretch, likewise.
        logits (`torch.FloatTensor` of shape `(num_labels,)`): The model's logits, in float32 on the CPU.
        scores (`torch.FloatTensor` of shape `(num_labels,)`):
            Softmax of the logits; their sigmoid for several labels; the logits themselves for a regression.
        frame_scores (`torch.FloatTensor` of shape `(num_frames, num_labels)`, *optional*):
            Of a model of frames: of a window, the scores of its frames of 20 ms that no earlier window had, and of
            the end of the stream: the others. One after another they are the frames of the stream.
    """

    start: float
    end: float
    logits: torch.Tensor
    scores: torch.Tensor
    frame_scores: torch.Tensor | None = None


class BlockChecks(HEARFeatureExtractor):
    """Checks blocks like clips, except for their length."""

    min_num_samples = 1


class HEARStream:
    """
    Classifies audio as it arrives, in blocks of any size and in bounded memory.

    Each window is classified as a clip of its own: its result is the model's for that excerpt.

    The decision on the whole stream is the model's for the whole clip, as long as that is no longer than two segments
    (60 s). Of a longer stream all but the last one or two segments are encoded once and dropped, and the decision
    pools the frames of all of them. It differs from the model's in two ways: the front end normalises each dropped
    segment, and the audio that is kept, separately, and the acoustic model does not see across their borders.

    Up to rounding, results do not depend on how the audio is cut into blocks. The model keeps no state, so streams can
    share it.

    Args:
        model ([`HEARForAudioClassification`] or [`HEARForAudioFrameClassification`]):
            The model, on any device. It is put into eval mode.
        sampling_rate (`int`): Rate of the blocks in Hz, which must be the model's.
        window_seconds (`float`, *optional*, defaults to 2.0):
            Length of a window, at most `segment_seconds`. Best is that of the clips that the model was trained on.
        hop_seconds (`float`, *optional*, defaults to 0.5):
            Time between the starts of two windows, at most `window_seconds`.
        segment_seconds (`float`, *optional*, defaults to 30.0):
            Length of audio that is encoded at once for the decision on the whole stream; twice as much is kept. Once
            that is full, one push in each segment takes longer, by some 0.7 s on a CPU thread for 30 s of audio.
        batch_size (`int`, *optional*, defaults to 8):
            Number of windows that are classified at once where a block completes several.

    Raises:
        `ValueError`: for another sampling rate than the model's, and lengths that contradict each other.
        `TypeError`: for a model without a classification head.

    Example:

    ```python
    >>> stream = HEARStream(model, sampling_rate=16_000)
    >>> for block in blocks:
    ...     for result in stream.push(block):
    ...         print(result.end, model.config.id2label[result.scores.argmax().item()])
    >>> whole = stream.finish()
    ```
    """

    model: Any  # of either class

    def __init__(
        self,
        model: HEARForAudioClassification | HEARForAudioFrameClassification,
        sampling_rate: int,
        window_seconds: float = 2.0,
        hop_seconds: float = 0.5,
        segment_seconds: float = 30.0,
        batch_size: int = 8,
    ):
        self.has_frames = hasattr(model, "frame_classifier")
        if not (hasattr(model, "hear") and (self.has_frames or hasattr(model, "classifier"))):
            raise TypeError(
                "`model` must be a HEARForAudioClassification or a HEARForAudioFrameClassification, "
                f"found: {type(model).__name__}."
            )
        self.model, self.sampling_rate, self.batch_size = model.eval(), model.config.sampling_rate, batch_size
        self.clip_checks = HEARFeatureExtractor(sampling_rate=self.sampling_rate)
        self.block_checks = BlockChecks(sampling_rate=self.sampling_rate)
        self.clip_checks._check_sampling_rate(sampling_rate)

        if not np.isfinite([window_seconds, hop_seconds, segment_seconds]).all():
            raise ValueError(
                f"Lengths must be finite, found: {window_seconds=}, {hop_seconds=}, {segment_seconds=}. Give seconds."
            )
        self.window, self.hop, self.segment = (  # in samples
            round(seconds * self.sampling_rate) for seconds in (window_seconds, hop_seconds, segment_seconds)
        )
        shortest = self.clip_checks.min_num_samples
        if not (0 < self.hop <= self.window and shortest <= self.window <= self.segment and batch_size > 0):
            raise ValueError(
                "0 < `hop_seconds` <= `window_seconds` <= `segment_seconds` must hold, a window must have at least "
                f"{shortest} samples, and `batch_size` must be positive, found: {hop_seconds=}, {window_seconds=}, "
                f"{segment_seconds=}, {batch_size=}."
            )
        if self.has_frames and self.hop % model.config.inputs_to_logits_ratio:
            raise ValueError(
                f"`hop_seconds` must be a multiple of 0.02, the length of a frame, found: {hop_seconds}. Round it."
            )
        self._pooling: Any = FramePooling() if self.has_frames else ClipPooling()
        self._kept = torch.zeros(2 * self.segment, dtype=torch.float32, device="cpu")
        self.reset()

    def reset(self) -> None:
        """Forgets the audio so far; the next block begins a new stream."""
        self._num_dropped = self._num_kept = 0  # samples: read into `_pooled`, and in `_kept`
        self._next_window = 0  # its first sample
        self._pooled: Any = None

    @property
    def seconds(self) -> float:
        """Seconds of audio received so far."""
        return (self._num_dropped + self._num_kept) / self.sampling_rate

    @torch.no_grad()
    def push(self, block: ArrayLike) -> list[HEARStreamResult]:
        """
        Adds the next block.

        Args:
            block (`np.ndarray`, `torch.Tensor` or `list[float]` of shape `(num_samples,)`):
                Mono samples, of any number: floats in [-1, 1], or int16 or int32 PCM.

        Returns:
            Results of the windows that this block completes, in order: often none, several after a long block.

        Raises:
            `ValueError`: for NaN, infinity or values beyond 2**31, and several channels.
            `TypeError`: for values that are not samples (text, bytes, booleans, int64, ...).
        """
        if np.shape(block) == (0,):
            return []
        samples, results = self.block_checks._as_waveform(block, "The block"), []
        while len(samples):
            if self._num_kept == len(self._kept):
                self._drop_segment()
            room = self._kept.numpy()[self._num_kept :][: len(samples)]
            room[:] = samples[: len(room)]
            self._num_kept += len(room)
            samples = samples[len(room) :]
            results += self._classify_windows()
        return results

    @torch.no_grad()
    def decision(self) -> HEARStreamResult:
        """
        Classifies the whole stream so far, in one pass over the audio that is kept: at most two segments.

        Raises:
            `ValueError`: as long as less than 12.6 ms of audio has been received.
        """
        num_samples, shortest = self._num_dropped + self._num_kept, self.clip_checks.min_num_samples
        if num_samples < shortest:
            raise ValueError(
                f"The stream must hold at least {shortest} samples ({1000 * shortest / self.sampling_rate:.1f} ms), "
                f"found: {num_samples}. Push more of them, or see why its source ends so soon."
            )
        (samples,) = self.clip_checks(self._kept[: self._num_kept], sampling_rate=self.sampling_rate).input_values
        logits = self._pooling.logits(self.model, self._pool(torch.from_numpy(samples)))
        return self._result(logits[0], 0, num_samples)

    def finish(self) -> HEARStreamResult:
        """
        Returns the [`~HEARStream.decision`] and ends the stream; the next block begins a new one.

        Of a model of frames the result has the `frame_scores` of the last frames, which no window had.
        """
        try:
            whole = self.decision()
            return replace(whole, frame_scores=self._last_frames()) if self.has_frames else whole
        finally:
            self.reset()

    @torch.no_grad()
    def _last_frames(self) -> torch.Tensor:
        """Those behind the last complete window, (n, L)."""
        samples = self._kept[self._next_window - self._num_dropped : self._num_kept]
        if len(samples) < self.clip_checks.min_num_samples:
            return torch.zeros(0, self.model.config.num_labels)
        num_known = 0 if self._next_window == 0 else self._frames_of(self.window) - self._frames_of(self.hop)
        return self.model(samples[None].to(self.model.device)).logits[0, num_known:].float().sigmoid().cpu()

    def _frames_of(self, num_samples: int) -> int:
        return self.model._get_feat_extract_output_lengths(num_samples)

    def _classify_windows(self) -> list[HEARStreamResult]:
        results: list[HEARStreamResult] = []
        samples = self._kept[self._next_window - self._num_dropped : self._num_kept]
        if len(samples) < self.window:
            return results
        for windows in samples.unfold(0, self.window, self.hop).split(self.batch_size):
            outputs = self.model(windows.to(self.model.device))
            for row, logits in enumerate(outputs.clip_logits if self.has_frames else outputs.logits):
                frames = self._new_frames(outputs.logits[row]) if self.has_frames else None
                results.append(self._result(logits, self._next_window, self._next_window + self.window, frames))
                self._next_window += self.hop
        return results

    def _new_frames(self, logits: torch.Tensor) -> torch.Tensor:
        """Those of a window, (n, L), that the one before it had not: of the first one all."""
        return logits if self._next_window == 0 else logits[-self._frames_of(self.hop) :]

    def _result(
        self, logits: torch.Tensor, start: int, stop: int, frames: torch.Tensor | None = None
    ) -> HEARStreamResult:
        logits = logits.float().cpu()
        scores = scores_of(logits, self.model.config.problem_type)
        frame_scores = None if frames is None else frames.float().sigmoid().cpu()
        return HEARStreamResult(start / self.sampling_rate, stop / self.sampling_rate, logits, scores, frame_scores)

    def _drop_segment(self) -> None:
        """Pools the older half of the audio that is kept, and drops it."""
        self._pooled = self._pool(self._kept[: self.segment])
        self._kept[: self.segment] = self._kept[self.segment :]
        self._num_dropped += self.segment
        self._num_kept -= self.segment

    def _pool(self, samples: torch.Tensor) -> Any:
        """What the decision needs of all frames of the dropped audio and of the `samples` that follow it."""
        last = self._pooling.read(self.model, samples[None].to(self.model.device))
        return last if self._pooled is None else self._pooling.join(self.model, self._pooled, last)


class ClipPooling:
    """Statistics, (1, 3D), and number of all frames: what a classifier's head reads."""

    def read(self, model: Any, samples: torch.Tensor) -> tuple[torch.Tensor, int]:
        outputs = model.hear(samples)
        return outputs.pooler_output, outputs.last_hidden_state.shape[1]

    def join(self, model: Any, first, second) -> tuple[torch.Tensor, int]:
        return join_pooled(first, second)

    def logits(self, model: Any, pooled: tuple[torch.Tensor, int]) -> torch.Tensor:
        return model.classifier(pooled[0])


class FramePooling:
    """The terms from which the probabilities of all frames are pooled, (1, L) each."""

    def read(self, model: Any, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = model(samples)
        return pooling_terms(outputs.logits, outputs.frame_mask, model.config.frame_pooling)

    def join(self, model: Any, first, second) -> tuple[torch.Tensor, torch.Tensor]:
        return join_terms(first, second, model.config.frame_pooling)

    def logits(self, model: Any, terms: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return terms[0] - terms[1]


def join_pooled(first: tuple[torch.Tensor, int], second: tuple[torch.Tensor, int]) -> tuple[torch.Tensor, int]:
    """Joins the pooled statistics, (B, 3D), and the numbers of frames of two stretches."""
    (pooled, num_frames), (pooled_2, num_frames_2) = first, second
    (mean, maximum, std), (mean_2, maximum_2, std_2) = pooled.float().chunk(3, -1), pooled_2.float().chunk(3, -1)
    total = num_frames + num_frames_2
    squares = (num_frames - 1) * std.square() + (num_frames_2 - 1) * std_2.square()
    squares = squares + num_frames * num_frames_2 / total * (mean - mean_2).square()
    joined_mean = (num_frames * mean + num_frames_2 * mean_2) / total
    return torch.cat([joined_mean, maximum.maximum(maximum_2), (squares / (total - 1)).sqrt()], dim=-1), total


__all__ = ["HEARStream", "HEARStreamResult"]
