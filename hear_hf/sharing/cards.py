"""Model cards: the README.md that the Hub shows, with the metadata that it reads.

What is true of every checkpoint (how HEAR works, its limits, how it differs, whom to cite) is read from MODEL_CARD.md.
"""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

from ..evaluation.metrics import METRIC_NAMES
from ..markdown import code_span, plain

TEMPLATES = Path(__file__).with_name("templates")
STATIC_CARD = Path(__file__).parents[2] / "MODEL_CARD.md"
CLASSIFIER_TEMPLATE = TEMPLATES / "classifier_card.md"
PRETRAINING_TEMPLATE = TEMPLATES / "pretraining_card.md"
PLACEHOLDER = "path/or/repository"  # in the code of a card whose repository is not known yet
LOCAL_IMAGE = re.compile(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*")
LOCAL_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)[^)]*\)")


def classifier_card(
    model: PreTrainedModel,
    sampling_rate: int,
    title: str,
    scores: dict[str, float],
    split: str,
    source: str | None = None,
    repository: str | None = None,
    base_model: str | None = None,
    datasets: list[str] | None = None,
    license: str = "mit",
    **run,
) -> ModelCard:
    """
    The card of a classifier.

    Args:
        model (`PreTrainedModel`): The classifier.
        sampling_rate (`int`): Of the waveforms that it reads, in Hz.
        title (`str`): Its name.
        scores (`dict[str, float]`): By their names in `METRIC_NAMES`.
        split (`str`): What the scores were measured on.
        source (`str`, *optional*): A description of the training data, in Markdown.
        repository (`str`, *optional*): Where the model is or will be; else a placeholder.
        base_model (`str`, *optional*): What it started from, by its name on the Hub or folder.
        datasets (`list[str]`, *optional*): The training data, by their names on the Hub.
        license (`str`, *optional*, defaults to `"mit"`): As the Hub names licences.
        **run: `args`, `steps`, `epochs` and `clips` of the training, where they are known.
    """
    names = {METRIC_NAMES[metric]: score for metric, score in scores.items()}
    config, on_hub = model.config, base_model is not None and not Path(base_model).exists()
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name="Audio classification",
            dataset_type=datasets[0] if datasets else "audio",
            dataset_name=f"{source or 'clips'} ({split})",
            metric_type=metric,
            metric_name=METRIC_NAMES[metric],
            metric_value=round(score, 4),
        )
        for metric, score in scores.items()
    ]
    metadata = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["audio", "audio-classification", config.model_type],
        datasets=datasets,
        metrics=list(scores),
        base_model=base_model if on_hub else None,
        model_name=title,
        eval_results=results,
    )
    return _render(
        CLASSIFIER_TEMPLATE,
        metadata,
        title=title,
        repository=repository,
        model=model,
        base=base_model and code_span(base_model if on_hub else Path(base_model).name),
        labels=[config.id2label[i] for i in range(config.num_labels)],
        multi_label=config.problem_type == "multi_label_classification",
        source=source,
        split=split,
        scores=names,
        sampling_rate=sampling_rate,
        **run,
    )


def pretraining_card(
    model: PreTrainedModel,
    title: str,
    scores: dict[str, float],
    source: str | None = None,
    repository: str | None = None,
    datasets: list[str] | None = None,
    license: str = "mit",
    **run,
) -> ModelCard:
    """
    The card of a quantizer, of a pretrained acoustic model or of a bare model.

    `scores` are named as they shall be shown, and `run` holds `args`, `steps`, `batch_size`, `num_clips`,
    `crop_seconds` and `origin` where they are known. The other arguments are those of `classifier_card`.
    """
    metadata = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["audio", model.config.model_type],
        datasets=datasets,
    )
    return _render(
        PRETRAINING_TEMPLATE,
        metadata,
        title=title,
        repository=repository,
        model=model,
        scores=scores,
        source=source,
        **run,
    )


def static_sections() -> dict[str, str]:
    """The sections of MODEL_CARD.md by their titles, without links and images that only lead somewhere beside it."""
    parts = re.split(r"^## (.+)\n", STATIC_CARD.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    texts = (LOCAL_LINK.sub(r"\1", LOCAL_IMAGE.sub("", text)).strip() for text in parts[1::2])
    return dict(zip(parts[::2], texts, strict=True))


def _render(template: Path, metadata: ModelCardData, title: str, repository: str | None, model, **values) -> ModelCard:
    return ModelCard.from_template(
        metadata,
        template_path=str(template),
        title=plain(title),
        repository=repository or PLACEHOLDER,
        config=model.config,
        class_name=type(model).__name__,
        num_parameters=f"{model.num_parameters() / 1e6:.1f} M",
        sections=static_sections(),
        code_span=code_span,
        **values,
    )
