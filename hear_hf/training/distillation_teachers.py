"""Teachers of a whole model: how what each gives of a batch becomes targets of the student.

Shapes: B batch, N samples, T frames of a teacher, n encoder frames (20 ms), D width of a teacher.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import ModelCard
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    PreTrainedModel,
)

from ..arguments import option
from ..data.teacher_states import Moments
from ..evaluation.frozen_encoders import check_weights, model_class
from ..frames_hear import frame_mask
from ..rates import check_rates
from ..sharing.cards import TeacherFacts
from ..spectrogram_hear import HEARClips, sinc_resampling_kernel
from .teacher_readers import (
    EncoderReader,
    PaddedReader,
    TeacherOutputs,
    TimedFrames,
    is_classifier,
    is_frame_classifier,
    probe_clip,
)

MULTI_LABEL = "multi_label_classification"
SINGLE_LABEL = "single_label_classification"
STATISTICS_NAME = "teacher_statistics.safetensors"  # in a checkpoint
CLIPS_AT_ONCE = 16  # of those that statistics are measured on
HOPS_PER_WINDOW = 4  # of those in which a teacher of whole clips says what is heard when
WINDOWS_AT_ONCE = 64


@dataclass
class DistillationTeacherArguments:
    """The models to distil from."""

    teacher_name_or_path: list[str] = option(
        default_factory=list,
        help="One or several audio models of Transformers, from the Hub or folders. The labels are those of the first "
        "that has any.",
    )
    teacher_revision: list[str] = option(
        default_factory=lambda: ["main"], help="The branch, tag or commit of each teacher, or one for all."
    )
    teacher_trust_remote_code: bool = option(default=False, help="Run the code that the teachers bring along.")
    teacher_dtype: Literal["float32", "bfloat16", "float16"] = option(
        default="float32", help="Compute the teachers in this type."
    )
    teacher_problem_type: str | None = option(
        default=None,
        help=f"What the teacher's labels are: {MULTI_LABEL} (a sigmoid for each) or {SINGLE_LABEL} (a softmax over "
        "all); by default what its config says, else the latter.",
    )

    def __post_init__(self):
        if len(self.teacher_revision) not in (1, len(self.teacher_name_or_path)):
            raise ValueError(
                f"`teacher_revision` must be one for all or one for each of the {len(self.teacher_name_or_path)} "
                f"teachers, found: {self.teacher_revision}"
            )
        if self.teacher_problem_type not in (None, MULTI_LABEL, SINGLE_LABEL):
            raise ValueError(
                f"`teacher_problem_type` must be {MULTI_LABEL} or {SINGLE_LABEL}, found: {self.teacher_problem_type}"
            )


class TeacherTargets:
    """
    What a teacher's outputs are like over the training clips, and how they become targets.

    Attributes are `facts`, what the student's card says of it; `device`; `problem_type`, `id2label` and `num_labels`,
    0 without labels; the widths of its embeddings, `clip_width` and `frame_width`; and `statistics`, once measured.
    """

    facts: TeacherFacts
    device: torch.device
    problem_type: str
    id2label: dict[int, str]
    num_labels: int
    clip_width: int
    frame_width: int
    statistics: dict[str, torch.Tensor]

    @property
    def is_multi_label(self) -> bool:
        return self.problem_type == MULTI_LABEL

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid() if self.is_multi_label else logits.softmax(-1)

    def sample(self, clips, num_clips: int) -> Iterator[TeacherOutputs]:
        """Yields what the teacher makes of so many of the training clips, in batches."""
        raise NotImplementedError

    def measure(self, batches: Iterable[TeacherOutputs]) -> None:
        """Measures mean and deviation of both embeddings, and the mean probability of each label."""
        clip, frames, labels = Moments(), Moments(), Moments()
        for outputs in batches:
            clip.add(outputs.clip_embedding.cpu().numpy())
            valid = frame_mask(outputs.num_frames, outputs.frames.shape[1])
            frames.add(outputs.frames[valid].cpu().numpy())
            if outputs.logits is not None and self.num_labels:
                labels.add(self.probabilities(outputs.logits).cpu().numpy())
        found = dict(zip(("clip_mean", "clip_std"), clip.read(), strict=True))
        found |= dict(zip(("frame_mean", "frame_std"), frames.read(), strict=True))
        if self.num_labels:
            found["mean_probabilities"] = labels.read()[0]
        if not all(np.isfinite(array).all() for array in found.values()):
            raise ValueError(
                f"The teacher {self.facts.name} must give finite outputs, found NaN or infinity. Check its weights, "
                "or compute it in float32 by `teacher_dtype`."
            )
        self.statistics = {name: torch.from_numpy(array).to(self.device) for name, array in found.items()}

    def targets(self, outputs: TeacherOutputs, num_frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the standardised embeddings of clips (B, D) and encoder frames (B, n, D), and which it covers."""
        frames, is_covered = outputs.at_encoder_frames(num_frames)
        found = self.statistics
        clips = (outputs.clip_embedding - found["clip_mean"]) / found["clip_std"]
        return clips, (frames - found["frame_mean"]) / found["frame_std"], is_covered


class DistillationTeacher(TeacherTargets):
    """
    A frozen teacher that runs beside the training.

    Args:
        model (`PreTrainedModel`): The model, on the device where it is to run. It is frozen in place.
        feature_extractor (`SequenceFeatureExtractor`): The one that belongs to it.
        sampling_rate (`int`): Rate of the clips that it will be given, in Hz.
        facts (`TeacherFacts`): What the student's card says of it.
        problem_type (`str`, *optional*): What its labels are; by default what its config says.

    Raises:
        `ValueError`: Its outputs hold no embeddings.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        feature_extractor: Any,
        sampling_rate: int,
        facts: TeacherFacts,
        problem_type: str | None = None,
    ):
        config: Any = model.config
        self.facts, self.problem_type = facts, problem_type or config.problem_type or SINGLE_LABEL
        self.id2label = {int(index): str(name) for index, name in config.id2label.items()}
        model.eval().requires_grad_(False)
        torch.nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)  # faster, the same results
        reader_class = PaddedReader if PaddedReader.fits(model, feature_extractor) else EncoderReader
        self.reader = reader_class(model, feature_extractor)
        self.device = self.reader.device
        self.sampling_rate = sampling_rate
        common = math.gcd(sampling_rate, self.reader.sampling_rate)
        self.source, self.target = sampling_rate // common, self.reader.sampling_rate // common
        self.kernel = sinc_resampling_kernel(self.source, self.target).to(self.device)
        outputs = self(torch.from_numpy(probe_clip(sampling_rate))[None], torch.ones(1, sampling_rate))
        has_labels = self.problem_type in (MULTI_LABEL, SINGLE_LABEL)
        self.num_labels = outputs.logits.shape[-1] if outputs.logits is not None and has_labels else 0
        self.clip_width, self.frame_width = outputs.clip_embedding.shape[-1], outputs.frames.shape[-1]

    @torch.no_grad()
    def __call__(self, waveform: torch.Tensor, attention_mask: torch.Tensor) -> TeacherOutputs:
        """Reads clips of the student's rate, padded on the right, (B, N) each."""
        clips = HEARClips.from_batch(waveform.float().to(self.device), attention_mask.to(self.device))
        if self.source != self.target:
            clips = clips.resample(self.kernel, self.source)
        lengths = clips.lengths.expand(len(waveform), 1)
        return self.reader(clips.waveform * frame_mask(lengths, clips.waveform.shape[1]), lengths)

    @torch.no_grad()
    def labels_over_time(
        self, outputs: TeacherOutputs, waveform: torch.Tensor, attention_mask: torch.Tensor, window_seconds: float
    ) -> TimedFrames:
        """
        Returns the probabilities of the labels over time: of the teacher's frames, or of windows where it has none.

        Args:
            outputs (`TeacherOutputs`): What the teacher made of the same batch.
            waveform (`torch.Tensor` of shape `(batch_size, num_samples)`): As of a call.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`): As of a call.
            window_seconds (`float`): Length of the windows, whose centres are a quarter of it apart.
        """
        if outputs.frame_logits is not None:
            probabilities = self.probabilities(outputs.frame_logits)
            return TimedFrames(probabilities, outputs.num_frames, outputs.first_center, outputs.step)
        hop = max(round(window_seconds * self.sampling_rate) // HOPS_PER_WINDOW, 1)
        windows, masks, counts = windows_over(waveform, attention_mask.sum(1), hop)
        batches = zip(windows.split(WINDOWS_AT_ONCE), masks.split(WINDOWS_AT_ONCE), strict=True)
        parts: list[Any] = [self(*batch).logits for batch in batches]
        rows = self.probabilities(torch.cat(parts)).split(counts.tolist())
        step = torch.full((len(rows), 1), hop / self.sampling_rate, device=self.device)
        return TimedFrames(pad_sequence(rows, batch_first=True), counts[:, None].to(self.device), step / 2, step)

    def sample(self, clips, num_clips: int) -> Iterator[TeacherOutputs]:
        waveforms = tqdm(clips.sample(num_clips), desc=f"Measuring {self.facts.name}", unit="clip", leave=False)
        return map(self.read_clips, chunks(waveforms))

    def read_clips(self, waveforms: list[np.ndarray]) -> TeacherOutputs:
        """Reads clips of any lengths as one batch."""
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        rows = pad_sequence([torch.from_numpy(row) for row in waveforms], batch_first=True)
        return self(rows, frame_mask(lengths, rows.shape[1]))


def windows_over(
    waveform: torch.Tensor, lengths: torch.Tensor, hop: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Cuts windows of `HOPS_PER_WINDOW` hops around the middle of each hop of each clip, as far as it reaches.

    Args:
        waveform (`torch.Tensor` of shape `(batch_size, num_samples)`): Padded on the right.
        lengths (`torch.Tensor` of shape `(batch_size,)`): Of the clips, in samples.
        hop (`int`): In samples.

    Returns:
        Windows and their masks, `(num_windows, HOPS_PER_WINDOW * hop)`, clip by clip, and the number of each clip's.
    """
    counts, reach = (lengths.long() + hop - 1) // hop, HOPS_PER_WINDOW * hop // 2
    clip = torch.repeat_interleave(torch.arange(len(waveform), device=counts.device), counts)
    center = hop * torch.cat([torch.arange(count, device=counts.device) for count in counts.tolist()]) + hop // 2
    start, stop = (center - reach).clamp(min=0), (center + reach).minimum(lengths[clip])
    position = start[:, None] + torch.arange(2 * reach, device=counts.device)
    rows = waveform[clip[:, None], position.clamp(max=waveform.shape[1] - 1)]
    return rows, position < stop[:, None], counts


def load_teachers(
    args: DistillationTeacherArguments, sampling_rate: int, device: torch.device
) -> list[DistillationTeacher]:
    """Loads all teachers, each once."""
    names = args.teacher_name_or_path
    if not names:
        raise ValueError("`teacher_name_or_path` must name at least one audio model of Transformers, found none.")
    revisions = args.teacher_revision * (len(names) if len(args.teacher_revision) == 1 else 1)
    pairs = zip(names, revisions, strict=True)
    return [load_teacher(name, revision, args, sampling_rate, device) for name, revision in pairs]


def load_teacher(
    name: str, revision: str, args: DistillationTeacherArguments, sampling_rate: int, device: torch.device
) -> DistillationTeacher:
    source = {"revision": revision, "trust_remote_code": args.teacher_trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(name, **source)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The teacher {name} must be a model of the Hub or a folder that `save_pretrained` made, and with "
            f"--teacher_trust_remote_code where it brings code along, found none: {error}"
        ) from error
    try:
        feature_extractor = AutoFeatureExtractor.from_pretrained(name, **source)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The teacher {name} must be an audio model saved with its feature extractor, found none: {error}"
        ) from error
    check_rates(f"the teacher {name}", config, feature_extractor)
    rate = getattr(feature_extractor, "sampling_rate", None)
    if not isinstance(rate, int) or rate < 1:
        raise ValueError(
            f"The teacher {name} must state the rate of its waveforms, found in its feature extractor: "
            f"sampling_rate={rate}. Correct its preprocessor_config.json."
        )
    head_class = head_class_of((config.architectures or [""])[0])
    auto_class = head_class or model_class(config)
    dtype = getattr(torch, args.teacher_dtype)
    try:
        model, info = auto_class.from_pretrained(name, config=config, dtype=dtype, output_loading_info=True, **source)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"The teacher {name} must have weights that fit its config.json, found that they do not load: {error}"
        ) from error
    check_weights(model, model, set(info["missing_keys"]), most=head_class is None)
    try:
        facts = TeacherFacts(public_name(name), teacher_license(name), model.num_parameters())
        teacher = DistillationTeacher(
            model.to(device), feature_extractor, sampling_rate, facts, args.teacher_problem_type
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"The teacher {name} must read waveforms and return hidden states, found that {type(model).__name__} does "
            f"not: {error}"
        ) from error
    names = set(teacher.id2label.values())
    if teacher.num_labels not in (0, len(names)):
        raise ValueError(
            f"The teacher {name} must name each of its {teacher.num_labels} labels differently, found {len(names)} "
            "names. Correct `id2label` in its config.json."
        )
    return teacher


def head_class_of(architecture: str) -> Any:
    """The Auto class that loads a model with the head that says what is heard; `None` where it has none."""
    if is_frame_classifier(architecture):
        return AutoModelForAudioFrameClassification
    return AutoModelForAudioClassification if is_classifier(architecture) else None


def measure(teachers: Sequence[TeacherTargets], clips, num_clips: int, checkpoint: str | None = None) -> None:
    """Measures each teacher on the same clips, or reads what the checkpoint of an interrupted run says of it."""
    path = Path(checkpoint or "") / STATISTICS_NAME
    stored = load_file(path) if checkpoint is not None and path.exists() else {}
    for i, teacher in enumerate(teachers):
        prefix = f"{i}.{teacher.facts.name}."
        found = {name: values for name, values in stored.items() if name.startswith(prefix)}
        if found:
            teacher.statistics = {name.removeprefix(prefix): x.to(teacher.device) for name, x in found.items()}
        else:
            teacher.measure(teacher.sample(clips, num_clips))


def save_statistics(teachers: Sequence[TeacherTargets], folder: Path) -> None:
    """Keeps in a checkpoint what was measured."""
    named = [(f"{i}.{teacher.facts.name}", teacher.statistics) for i, teacher in enumerate(teachers)]
    tensors = {f"{prefix}.{name}": x.contiguous() for prefix, found in named for name, x in found.items()}
    save_file(tensors, folder / STATISTICS_NAME)


def first_labelled(teachers: Sequence[TeacherTargets]) -> TeacherTargets | None:
    return next((teacher for teacher in teachers if teacher.num_labels > 0), None)


def public_name(name: str) -> str:
    """The name of the Hub, or the folder's without what is above it on this machine."""
    return Path(name).resolve().name if Path(name).exists() else name


def teacher_license(name: str) -> str | None:
    """The licence that the teacher's card names."""
    try:
        return ModelCard.load(Path(name) / "README.md" if Path(name).is_dir() else name).data.license
    except Exception:  # no card, no metadata in it, or no network: the card then names no licence
        return None


def chunks(waveforms: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Batches of clips, as lists."""
    iterator = iter(waveforms)
    while batch := list(islice(iterator, CLIPS_AT_ONCE)):
        yield batch
