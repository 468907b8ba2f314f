"""Classification of live audio: blocks of samples -> results of sliding windows, and a decision on the whole."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from .feature_extraction_hear import HEARFeatureExtractor
from .modeling_hear import HEARForAudioClassification
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
    """

    start: float
    end: float
    logits: torch.Tensor
    scores: torch.Tensor


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
        model ([`HEARForAudioClassification`]): The model, on any device. It is put into eval mode.
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

    def __init__(
        self,
        model: HEARForAudioClassification,
        sampling_rate: int,
        window_seconds: float = 2.0,
        hop_seconds: float = 0.5,
        segment_seconds: float = 30.0,
        batch_size: int = 8,
    ):
        if not (hasattr(model, "hear") and hasattr(model, "classifier")):
            raise TypeError(f"`model` must be a HEARForAudioClassification, found: {type(model).__name__}.")
        self.model, self.sampling_rate, self.batch_size = model.eval(), model.config.sampling_rate, batch_size
        self.clip_checks = HEARFeatureExtractor(sampling_rate=self.sampling_rate)
        self.block_checks = BlockChecks(sampling_rate=self.sampling_rate)
        self.clip_checks._check_sampling_rate(sampling_rate)

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
        self._kept = torch.zeros(2 * self.segment, dtype=torch.float32, device="cpu")
        self.reset()

    def reset(self) -> None:
        """Forgets the audio so far; the next block begins a new stream."""
        self._num_dropped = self._num_kept = 0  # samples: read into `_pooled`, and in `_kept`
        self._next_window = 0  # its first sample
        self._pooled: tuple[torch.Tensor, int] | None = None

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
        pooled, _ = self._pool(torch.from_numpy(samples))
        logits = self.model.classifier(pooled)
        return self._result(logits[0], 0, num_samples)

    def finish(self) -> HEARStreamResult:
        """Returns the [`~HEARStream.decision`] and ends the stream; the next block begins a new one."""
        try:
            return self.decision()
        finally:
            self.reset()

    def _classify_windows(self) -> list[HEARStreamResult]:
        results: list[HEARStreamResult] = []
        samples = self._kept[self._next_window - self._num_dropped : self._num_kept]
        if len(samples) < self.window:
            return results
        for windows in samples.unfold(0, self.window, self.hop).split(self.batch_size):
            for logits in self.model(windows.to(self.model.device)).logits:
                results.append(self._result(logits, self._next_window, self._next_window + self.window))
                self._next_window += self.hop
        return results

    def _result(self, logits: torch.Tensor, start: int, stop: int) -> HEARStreamResult:
        logits = logits.float().cpu()
        scores = scores_of(logits, self.model.config.problem_type)
        return HEARStreamResult(start / self.sampling_rate, stop / self.sampling_rate, logits, scores)

    def _drop_segment(self) -> None:
        """Pools the older half of the audio that is kept, and drops it."""
        self._pooled = self._pool(self._kept[: self.segment])
        self._kept[: self.segment] = self._kept[self.segment :]
        self._num_dropped += self.segment
        self._num_kept -= self.segment

    def _pool(self, samples: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Statistics, (1, 3D), and number of all frames of the dropped audio and of the `samples` that follow it."""
        outputs = self.model.hear(samples[None].to(self.model.device))
        last = outputs.pooler_output, outputs.last_hidden_state.shape[1]
        return last if self._pooled is None else join_pooled(self._pooled, last)


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
