"""Teachers of a whole model: what each gives of a batch, and how that becomes targets of the student.

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
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification, PreTrainedModel

from ..arguments import option
from ..data.teacher_states import ENCODER_FRAME_SECONDS, FIRST_FRAME_SECONDS, Moments
from ..evaluation.frozen_encoders import FrozenEncoder, check_weights, model_class
from ..frames_hear import frame_mask
from ..rates import check_rates
from ..sharing.cards import TeacherFacts
from ..spectrogram_hear import HEARClips, sinc_resampling_kernel

MULTI_LABEL = "multi_label_classification"
SINGLE_LABEL = "single_label_classification"
STATISTICS_NAME = "teacher_statistics.safetensors"  # in a checkpoint
CLIPS_AT_ONCE = 16  # of those that statistics are measured on


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


@dataclass
class TeacherOutputs:
    """
    What a teacher gives of a batch, in float32.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*): Of a teacher with labels.
        clip_embedding (`torch.Tensor` of shape `(batch_size, clip_width)`): One vector per clip.
        frames (`torch.Tensor` of shape `(batch_size, num_frames, frame_width)`): Its time-resolved embedding.
        num_frames (`torch.Tensor` of shape `(batch_size, 1)`): How many frames of each clip are valid.
        first_center (`torch.Tensor` of shape `(batch_size, 1)`): Where the first frame is centred, in seconds.
        step (`torch.Tensor` of shape `(batch_size, 1)`): Time from one frame to the next, in seconds.
    """

    logits: torch.Tensor | None
    clip_embedding: torch.Tensor
    frames: torch.Tensor
    num_frames: torch.Tensor
    first_center: torch.Tensor
    step: torch.Tensor

    def at_encoder_frames(self, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Interpolates between the centres of the teacher's frames, as `TeacherFeatures` does of a single clip.

        Returns:
            The frames at the times of the encoder's, (B, n, D), and a mask of those that the teacher covers, (B, n).
        """
        seconds = FIRST_FRAME_SECONDS + ENCODER_FRAME_SECONDS * torch.arange(num_frames, device=self.frames.device)
        position = (seconds - self.first_center) / self.step  # (B, n)
        is_covered = (position >= -0.5) & (position <= self.num_frames - 0.5)
        position = position.clamp(min=0).minimum((self.num_frames - 1).clamp(min=0))
        left = position.long().minimum((self.num_frames - 2).clamp(min=0))
        right = (left + 1).minimum((self.num_frames - 1).clamp(min=0))
        weight = (position - left).unsqueeze(-1)
        rows = [self.frames.gather(1, i.unsqueeze(-1).expand(-1, -1, self.frames.shape[2])) for i in (left, right)]
        return (1 - weight) * rows[0] + weight * rows[1], is_covered


class BaseOutputs:
    """Runs a model, with its head if it has one, and returns the outputs of its base model and the logits.

    Args:
        model (`PreTrainedModel`): Any model; where it has a base model, a hook keeps what that returns.
    """

    def __init__(self, model: PreTrainedModel):
        self.model, self.kept = model, None
        if model.base_model is not model:
            model.base_model.register_forward_hook(self._keep)

    def _keep(self, module, args, output) -> None:
        self.kept = output

    def __call__(self, **inputs) -> tuple[Any, torch.Tensor | None]:
        outputs = self.model(**inputs)
        base, self.kept = outputs if self.kept is None else self.kept, None
        logits = getattr(outputs, "logits", None)
        return base, logits.float() if logits is not None and logits.ndim == 2 else None  # of clips, not of frames


class PaddedReader:
    """Reads a padded batch of waveforms at once, on its device: a model whose outputs say which frames are valid."""

    def __init__(self, model: PreTrainedModel, feature_extractor: Any):
        self.run, self.device = BaseOutputs(model), model.device
        config = model.config
        self.sampling_rate: int = feature_extractor.sampling_rate
        self.min_samples: int = getattr(feature_extractor, "min_num_samples", 1)
        self.has_grid = hasattr(config, "first_frame_center")
        if self.has_grid:
            self.first_center = config.first_frame_center / self.sampling_rate
            self.step = config.inputs_to_logits_ratio / self.sampling_rate

    @staticmethod
    def fits(model: PreTrainedModel, feature_extractor: Any) -> bool:
        """Whether the feature extractor leaves waveforms as they are, and the outputs have a `frame_mask`."""
        rate = feature_extractor.sampling_rate
        clip = probe_clip(rate)
        features = feature_extractor([clip], sampling_rate=rate, return_tensors="pt")
        values = features.get("input_values")
        if values is None or values.shape != (1, len(clip)) or not np.allclose(values[0], clip):
            return False
        with torch.no_grad():
            outputs, _ = BaseOutputs(model)(input_values=values.to(model.device))
        return getattr(outputs, "frame_mask", None) is not None and frames_of(outputs) is not None

    def __call__(self, waveform: torch.Tensor, lengths: torch.Tensor) -> TeacherOutputs:
        """Reads waveforms (B, N), 0 in padding, of the lengths (B, 1)."""
        lengths = lengths.clamp(min=self.min_samples)
        waveform = torch.nn.functional.pad(waveform, (0, max(self.min_samples - waveform.shape[1], 0)))
        mask = frame_mask(lengths, waveform.shape[1]).long()
        outputs, logits = self.run(input_values=waveform, attention_mask=mask)
        frames, valid = frames_of(outputs).float(), outputs.frame_mask
        pooled = getattr(outputs, "pooler_output", None)
        pooled = mean_of_valid(frames, valid) if pooled is None else pooled.float()
        num_frames = valid.sum(1, keepdim=True)
        if self.has_grid:
            step, first_center = (torch.full_like(num_frames, s, dtype=torch.float32) for s in self.grid())
        else:
            step = lengths / self.sampling_rate / num_frames
            first_center = step / 2
        return TeacherOutputs(logits, pooled, frames, num_frames, first_center, step)

    def grid(self) -> tuple[float, float]:
        return self.step, self.first_center


class EncoderReader:
    """Reads clips by the model's own feature extractor, only those together that it can read so."""

    def __init__(self, model: PreTrainedModel, feature_extractor: Any):
        self.encoder = HeadedEncoder(model, feature_extractor)
        self.sampling_rate, self.device = self.encoder.sampling_rate, self.encoder.device

    def __call__(self, waveform: torch.Tensor, lengths: torch.Tensor) -> TeacherOutputs:
        clips = [row[:length].cpu().numpy() for row, length in zip(waveform, lengths[:, 0].tolist(), strict=True)]
        frames: list[list[torch.Tensor]] = [[] for _ in clips]
        logits: list[list[torch.Tensor]] = [[] for _ in clips]
        for batch, outputs in self.encoder.outputs(clips, self.sampling_rate):
            for i, rows in enumerate(self.encoder.valid_frames(outputs, batch, -1)):
                clip = batch[i][0]
                frames[clip].append(rows)
                if self.encoder.logits is not None:
                    logits[clip].append(self.encoder.logits[i])
        joined = [torch.cat(rows) for rows in frames]
        num_frames = torch.tensor([[len(rows)] for rows in joined], device=self.device)
        step = lengths.to(self.device) / self.sampling_rate / num_frames
        return TeacherOutputs(
            torch.stack([torch.stack(rows).mean(0) for rows in logits]) if logits[0] else None,
            torch.stack([rows.mean(0) for rows in joined]),
            torch.nn.utils.rnn.pad_sequence(joined, batch_first=True),
            num_frames,
            step / 2,
            step,
        )


class HeadedEncoder(FrozenEncoder):
    """A frozen encoder under its head, if it has one: a pass gives hidden states and leaves `logits`."""

    logits: torch.Tensor | None = None

    def __init__(self, model: PreTrainedModel, feature_extractor: Any):
        self.run = BaseOutputs(model) if is_classifier(type(model).__name__) else None
        base: Any = model.base_model
        super().__init__(base, feature_extractor, device=model.device)

    @torch.no_grad()
    def _forward(self, waveforms: list[np.ndarray]):
        if self.run is None:
            return super()._forward(waveforms)
        inputs = self.family.inputs(waveforms, self.model.dtype).to(self.device)
        outputs, self.logits = self.run(**inputs, output_hidden_states=True)
        return outputs


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

    def sample(self, clips, num_clips: int) -> Iterator[TeacherOutputs]:
        waveforms = tqdm(clips.sample(num_clips), desc=f"Measuring {self.facts.name}", unit="clip", leave=False)
        return map(self.read_clips, chunks(waveforms))

    def read_clips(self, waveforms: list[np.ndarray]) -> TeacherOutputs:
        """Reads clips of any lengths as one batch."""
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        rows = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in waveforms], batch_first=True)
        return self(rows, frame_mask(lengths, rows.shape[1]))


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
    has_head = is_classifier((config.architectures or [""])[0])
    auto_class: Any = AutoModelForAudioClassification if has_head else model_class(config)
    dtype = getattr(torch, args.teacher_dtype)
    try:
        model, info = auto_class.from_pretrained(name, config=config, dtype=dtype, output_loading_info=True, **source)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"The teacher {name} must have weights that fit its config.json, found that they do not load: {error}"
        ) from error
    check_weights(model, model, set(info["missing_keys"]), most=not has_head)
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


def is_classifier(class_name: str) -> bool:
    return class_name.endswith(("ForAudioClassification", "ForSequenceClassification"))


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


def probe_clip(sampling_rate: int) -> np.ndarray:
    """A second of noise."""
    return 0.1 * np.random.default_rng(0).standard_normal(sampling_rate).astype(np.float32)


def chunks(waveforms: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Batches of clips, as lists."""
    iterator = iter(waveforms)
    while batch := list(islice(iterator, CLIPS_AT_ONCE)):
        yield batch


def frames_of(outputs: Any) -> Any:
    """The last hidden states of a model; of a pretrained HEAR, those of its acoustic model."""
    states = getattr(outputs, "last_hidden_state", None)
    return getattr(outputs, "acoustic_hidden_states", None) if states is None else states


def mean_of_valid(frames: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B, T, D) and (B, T) -> (B, D)"""
    return (frames * valid.unsqueeze(-1)).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
