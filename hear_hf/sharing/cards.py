"""Model cards: the README.md that the Hub shows, with the metadata that it reads.

The templates beside this module hold all that a card says. A name that a template misspells is an error.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CardData, EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from transformers import PreTrainedConfig, PreTrainedModel, TrainingArguments

from ..evaluation.metrics import METRIC_NAMES
from ..markdown import code_cell, code_span, plain

PLACEHOLDER = "path/or/repository"  # in the code of a card whose repository is not known yet
FRAME_TAGS = ["sound-event-detection", "audio-frame-classification"]


@dataclass
class TrainingRun:
    """
    What a training run adds to the card of its model.

    Args:
        args (`TrainingArguments`): Its settings.
        steps (`int`): Optimizer steps that it took.
        epochs (`float`, *optional*): Passes over the training clips; a stream has none.
        clips (`dict[str, int]`, *optional*): Number of clips in each split; those of a stream are not counted.
        crop_seconds (`float`, *optional*): Length of the crops that it took of longer clips.
        origin (`str`, *optional*): A sentence on what the model learned from.
    """

    args: TrainingArguments
    steps: int
    epochs: float | None = None
    clips: dict[str, int] = field(default_factory=dict)
    crop_seconds: float | None = None
    origin: str = ""

    @property
    def batch_size(self) -> int:
        """Clips in each step, of all devices."""
        return self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size

    @property
    def warmup(self) -> str:
        steps = self.args.warmup_steps
        return f"{steps:.3g} of the steps" if 0 < steps < 1 else f"{steps:.0f} steps"

    @property
    def precision(self) -> str:
        return "bfloat16 autocast" if self.args.bf16 else "float16 autocast" if self.args.fp16 else "float32"


@dataclass
class TeacherFacts:
    """
    What the card of a model says of a teacher.

    Args:
        name (`str`): Its name on the Hub, or that of its folder.
        license (`str`, *optional*): The licence that its own card names.
        num_parameters (`int`, *optional*): Its size.
    """

    name: str
    license: str | None = None
    num_parameters: int | None = None


@dataclass
class TaughtLabel:
    """
    What the card of a taught model says of a label.

    Args:
        name (`str`): The label.
        num_clips (`int`): Clips that it was learned from.
        heard (`float`, *optional*): Share of them that it is given where they are held out; `None` where none is.
    """

    name: str
    num_clips: int
    heard: float | None


@dataclass
class TeachingFacts:
    """
    What the card of a model says of a linear head that was taught to it.

    Args:
        labels (`list[TaughtLabel]`): The labels.
        num_views (`int`): How often each clip was read.
        strength (`float`): LogisticRegression's C.
        num_folds (`int`): Of the cross-validation; 0 without any.
        spread (`dict[str, float]`): Standard deviation of each score over the folds.
        num_kept (`int`): Labels that the model had before and keeps.
        num_unknown (`int`): Windows of sounds of none of the labels.
        window_seconds (`float`): Their length.
        false_alarm_rate (`float`, *optional*): What the thresholds were chosen for.
        measured_rate (`float`, *optional*): Share of unknown windows in which a label is heard by thresholds that
            were chosen on others.
    """

    labels: list[TaughtLabel]
    num_views: int
    strength: float
    num_folds: int
    spread: dict[str, float]
    num_kept: int = 0
    num_unknown: int = 0
    window_seconds: float = 0.0
    false_alarm_rate: float | None = None
    measured_rate: float | None = None


@dataclass
class CardFacts:
    """
    What the card of a model says.

    Args:
        model (`PreTrainedModel`): The model.
        sampling_rate (`int`): Rate of the waveforms that it takes, in Hz.
        title (`str`): Its name.
        scores (`dict[str, float]`, *optional*): Results by the name of the metric.
        split (`str`, *optional*, defaults to `"held-out"`): Which clips the scores are of.
        source (`str`, *optional*): The training data, described in Markdown.
        datasets (`list[str]`, *optional*): The training data, by their names on the Hub.
        repository (`str`, *optional*): Where the model is or will be; a placeholder by default.
        base_model (`str`, *optional*): What it was fine-tuned from: a name on the Hub, or a folder.
        license (`str`, *optional*, defaults to `"mit"`): The licence of the weights, as the Hub names it.
        run (`TrainingRun`, *optional*): The run that trained it, where it is known.
        teachers (`list[TeacherFacts]`, *optional*): What it was distilled from, the teacher of its labels first.
        has_labels (`bool`, *optional*, defaults to `True`): Whether its head was trained.
        teaching (`TeachingFacts`, *optional*): How its labels were taught, where they were.
        is_adapter (`bool`, *optional*, defaults to `False`): Whether its folder holds an adapter of the base model.
    """

    model: PreTrainedModel
    sampling_rate: int
    title: str
    scores: dict[str, float] = field(default_factory=dict)
    split: str = "held-out"
    source: str | None = None
    datasets: list[str] | None = None
    repository: str = PLACEHOLDER
    base_model: str | None = None
    license: str = "mit"
    run: TrainingRun | None = None
    teachers: list[TeacherFacts] = field(default_factory=list)
    has_labels: bool = True
    teaching: TeachingFacts | None = None
    is_adapter: bool = False

    @property
    def config(self) -> PreTrainedConfig:
        return self.model.config

    @property
    def class_name(self) -> str:
        return type(self.model).__name__

    @property
    def num_parameters(self) -> str:
        return f"{self.model.num_parameters() / 1e6:.1f} M"

    @property
    def scores_frames(self) -> bool:
        return self.class_name == "HEARForAudioFrameClassification"

    @property
    def is_hear(self) -> bool:
        return self.config.model_type in ("hear", "hear_quantizer")

    @property
    def labels(self) -> list[str]:
        return label_names(self.config)

    @property
    def base_model_is_local(self) -> bool:
        return self.base_model is not None and Path(self.base_model).exists()

    @property
    def starting_point(self) -> str:
        """What the training started from, without the folders of this machine."""
        return "random weights" if self.base_name is None else code_span(self.base_name)

    @property
    def base_name(self) -> str | None:
        """The base model's name on the Hub, or that of its folder alone."""
        return Path(str(self.base_model)).name if self.base_model_is_local else self.base_model

    @property
    def named_scores(self) -> dict[str, float]:
        return {score_name(metric): score for metric, score in self.scores.items()}


def classifier_card(facts: CardFacts) -> ModelCard:
    """The card of an audio classifier. Metrics of `METRIC_NAMES` also become results that the Hub can list."""
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name="Audio classification",
            dataset_type=facts.datasets[0] if facts.datasets else "audio",
            dataset_name=f"{facts.source or 'clips'} ({facts.split})",
            metric_type=metric,
            metric_name=score_name(metric),
            metric_value=round(score, 4),
        )
        for metric, score in facts.scores.items()
    ]
    metadata = ModelCardData(
        license=facts.license,
        library_name="peft" if facts.is_adapter else "transformers",
        pipeline_tag="audio-classification",
        tags=["audio", "audio-classification", facts.config.model_type],
        datasets=facts.datasets,
        metrics=list(facts.scores),
        base_model=None if facts.base_model_is_local else facts.base_model,
        model_name=facts.title,
        eval_results=results,
    )
    template = "classifier_card.md" if facts.teaching is None else "taught_card.md"
    return ModelCard(render(template, metadata, card=facts))


def pretraining_card(facts: CardFacts) -> ModelCard:
    """The card of a quantizer, of a pretrained acoustic model or of a model without a head."""
    metadata = ModelCardData(
        license=facts.license,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["audio", facts.config.model_type],
        datasets=facts.datasets,
    )
    return ModelCard(render("pretraining_card.md", metadata, card=facts))


def distilled_card(facts: CardFacts) -> ModelCard:
    """The card of a classifier that learned from teachers, or of one whose head is still to be trained."""
    task = "audio-classification" if facts.has_labels else "feature-extraction"
    tasks = FRAME_TAGS if facts.scores_frames else [task]
    metadata = ModelCardData(
        license=facts.license,
        library_name="transformers",
        pipeline_tag=None if facts.scores_frames else task,  # the Hub knows none of frames
        tags=["audio", *tasks, "distillation", facts.config.model_type],
        datasets=facts.datasets,
        model_name=facts.title,
    )
    return ModelCard(render("distilled_card.md", metadata, card=facts))


def frames_card(facts: CardFacts) -> ModelCard:
    """The card of a model that says what is heard when."""
    metadata = ModelCardData(
        license=facts.license,
        library_name="transformers",
        tags=["audio", *FRAME_TAGS, facts.config.model_type],
        datasets=facts.datasets,
        metrics=list(facts.scores),
        base_model=None if facts.base_model_is_local else facts.base_model,
        model_name=facts.title,
    )
    return ModelCard(render("frames_card.md", metadata, card=facts))


def label_names(config: Any) -> list[str]:
    """The labels of a classifier in the order of its logits."""
    return [config.id2label[index] for index in range(config.num_labels)]


def score_name(metric: str) -> str:
    """The name to show of a metric, for example `Macro-F1` of `macro_f1`."""
    return METRIC_NAMES.get(metric) or metric[:1].upper() + metric[1:].replace("_", " ")


def rounded(value: float) -> str:
    """Four decimals of a share, four digits of a larger number."""
    return f"{value:.4f}" if abs(value) <= 1 else f"{value:.4g}"


def render(template: str, metadata: CardData, **values: Any) -> str:
    """
    Fills in a card's template.

    Args:
        template (`str`): File name in the folder of templates.
        metadata (`CardData`): Heads the card, as YAML.
        **values: What the template names.

    Raises:
        `jinja2.UndefinedError`: The template names something else.
    """
    text = ENVIRONMENT.get_template(template).render(**values)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()  # parts that are left out leave blank lines
    return f"---\n{metadata.to_yaml()}\n---\n\n{text}\n"


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,  # of a template that another includes
)
ENVIRONMENT.filters |= {"code_cell": code_cell, "code_span": code_span, "plain": plain, "rounded": rounded}
