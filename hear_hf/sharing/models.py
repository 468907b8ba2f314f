"""A model's card and example clips, completed for the Hub."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from huggingface_hub import ModelCard
from transformers import PreTrainedModel

from ..arguments import option
from ..data.decoding import decode_audio
from ..evaluation.metrics import METRIC_NAMES
from ..scores import scores_of
from .cards import PLACEHOLDER, CardFacts, classifier_card, label_names, pretraining_card
from .checks import Checked, read_json
from .upload import Destination, SharingError

TRAINER_DRAFT = "generated automatically according to the information the Trainer had access to"
SAMPLES = "samples"  # the repository's folder of example clips
EXAMPLE_SECONDS = 30
TIMINGS = "runtime|_per_second$"
MAX_SCORE = 1e9


@dataclass
class CardArguments:
    """What to state on a model's card. What is not given stays as README.md has it."""

    license: str | None = option(default=None, help="State this licence, as the Hub names it; a new card states mit.")
    datasets: list[str] | None = option(default=None, help="Link the training data, by their names on the Hub.")
    base_model: str | None = option(default=None, help="Link what the model started from, by its name on the Hub.")
    examples: list[str] | None = option(default=None, help="Show these clips with what the model hears in them.")


def complete_card(staged: Path, checked: Checked, args: CardArguments, repository: str, title: str) -> ModelCard:
    """
    Completes the card of a staged model, or writes one where there is none but Trainer's draft.

    Args:
        staged (`Path`): The folder that will be uploaded. Example clips are added to it.
        checked (`Checked`): The model in it.
        args (`CardArguments`): What to state.
        repository (`str`): Where it will be, as `OWNER/NAME`.
        title (`str`): Heads a new card.

    Raises:
        `SharingError`: The metadata of the card are no YAML, or an example is no clip.
    """
    path, card = staged / "README.md", None
    if path.is_file():
        try:
            card = ModelCard.load(path)
        except Exception as error:  # whatever YAML or huggingface_hub raises
            raise SharingError(f"The metadata of README.md must be YAML, found: {error}") from error
    if card is None or TRAINER_DRAFT in card.content:
        card = new_card(checked, args, repository, title, read_results(staged))
    card.text = card.text.replace(PLACEHOLDER, repository)
    library = "transformers" if checked.base is None else "peft"
    known = {
        "library_name": card.data.get("library_name") or library,
        "pipeline_tag": "audio-classification" if checked.is_classifier else "feature-extraction",
        "license": args.license,
        "datasets": args.datasets,
        "base_model": args.base_model or checked.base,
    }
    for key, value in known.items():
        if value:
            card.data[key] = value
    if args.examples:
        (staged / SAMPLES).mkdir()
        card.data["widget"] = [add_sample(Path(file), staged, checked, repository) for file in args.examples]
    return card


def new_card(
    checked: Checked, args: CardArguments, repository: str, title: str, results: dict[str, dict[str, float]]
) -> ModelCard:
    split = "test" if "test" in results else next(iter(results), "held-out")
    facts = CardFacts(
        checked.model,
        checked.sampling_rate,
        title,
        scores=results.get(split, {}),
        split=split,
        datasets=args.datasets,
        repository=repository,
        base_model=args.base_model or checked.base,
        license=args.license or "mit",
        is_adapter=checked.base is not None,
    )
    if not checked.is_classifier:
        return pretraining_card(facts)
    facts.scores = {metric: score for metric, score in facts.scores.items() if metric in METRIC_NAMES}
    return classifier_card(facts)


def read_results(folder: Path) -> dict[str, dict[str, float]]:
    """Reads the results of a run by split and metric, as Trainer's `save_metrics` leaves them."""
    results = {}
    for path in sorted(folder.glob("*_results.json")):
        split = path.name.removesuffix("_results.json")
        if split not in ("all", "train"):
            values = read_json(path)
            metrics = {key.removeprefix(f"{split}_"): value for key, value in values.items() if key != "epoch"}
            results[split] = {key: value for key, value in metrics.items() if is_score(key, value)}
    return results


def is_score(name: str, value: Any) -> bool:
    is_number = isinstance(value, int | float) and abs(value) <= MAX_SCORE  # which NaN is not
    return is_number and not re.search(TIMINGS, name)


def add_sample(file: Path, staged: Path, checked: Checked, repository: str) -> dict[str, Any]:
    """Writes the first half minute of a clip beside the model, and returns the Hub's entry of it and its labels."""
    name = f"{SAMPLES}/{file.stem}.flac"
    entry: dict[str, Any] = {
        "example_title": file.stem,
        "src": f"{Destination(repository).url}/resolve/main/{name}",
    }
    try:
        waveform = decode_audio(file, checked.sampling_rate)[: EXAMPLE_SECONDS * checked.sampling_rate]
        soundfile.write(staged / name, waveform, checked.sampling_rate)
        if checked.is_classifier:
            entry["output"] = best_labels(checked.model, waveform)
    except (OSError, RuntimeError, ValueError) as error:
        raise SharingError(f"An example must be a clip of sound, found {file.name}: {error}") from error
    return entry


@torch.no_grad()
def best_labels(model: PreTrainedModel, waveform: np.ndarray) -> list[dict[str, Any]]:
    """The three likeliest labels and their scores."""
    logits = model(torch.tensor(waveform, dtype=model.dtype)[None]).logits[0]
    scores, names = scores_of(logits, model.config.problem_type), label_names(model.config)
    best = scores.topk(min(3, len(scores))).indices.tolist()
    return [{"label": names[index], "score": round(float(scores[index]), 4)} for index in best]
