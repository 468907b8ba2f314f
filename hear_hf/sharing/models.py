"""A model's card and example clips, completed for the Hub."""

import argparse
import re
from pathlib import Path

import numpy as np
import soundfile
import torch
from huggingface_hub import ModelCard
from transformers import PreTrainedModel

from ..data.decoding import decode_audio
from ..evaluation.metrics import METRIC_NAMES
from ..scores import scores_of
from .cards import PLACEHOLDER, CardFacts, classifier_card, pretraining_card
from .checks import Checked, read_json
from .upload import Destination, SharingError

TRAINER_DRAFT = "generated automatically according to the information the Trainer had access to"
SAMPLES = "samples"  # the repository's folder of example clips
EXAMPLE_SECONDS = 30
TIMINGS = "runtime|_per_second$"


def complete_card(staged: Path, checked: Checked, args: argparse.Namespace, name: str) -> ModelCard:
    """The folder's own card with what is known now, or a new one where it has none but Trainer's draft."""
    path, card = staged / "README.md", None
    if path.is_file():
        try:
            card = ModelCard.load(path)
        except Exception as error:  # whatever YAML or huggingface_hub raises
            raise SharingError(f"The metadata of README.md must be YAML, found: {error}") from error
    if card is None or TRAINER_DRAFT in card.content:
        card = new_card(checked, name, read_results(staged), args)
    card.text = card.text.replace(PLACEHOLDER, args.repo_id)
    known = {
        "library_name": card.data.get("library_name") or "transformers",
        "pipeline_tag": "audio-classification" if checked.is_classifier else "feature-extraction",
        "license": args.license,
        "datasets": args.datasets,
        "base_model": args.base_model,
    }
    for key, value in known.items():
        if value:
            card.data[key] = value
    if args.examples:
        (staged / SAMPLES).mkdir()
        card.data["widget"] = [add_sample(Path(file), staged, checked, args.repo_id) for file in args.examples]
    return card


def new_card(checked: Checked, name: str, results: dict[str, dict[str, float]], args: argparse.Namespace) -> ModelCard:
    split = "test" if "test" in results else next(iter(results), "held-out")
    facts = CardFacts(
        checked.model,
        checked.sampling_rate,
        name,
        scores=results.get(split, {}),
        split=split,
        datasets=args.datasets,
        repository=args.repo_id,
        base_model=args.base_model,
        license=args.license or "mit",
    )
    if not checked.is_classifier:
        return pretraining_card(facts)
    facts.scores = {metric: score for metric, score in facts.scores.items() if metric in METRIC_NAMES}
    return classifier_card(facts)


def read_results(folder: Path) -> dict[str, dict[str, float]]:
    """The run's results by split and metric, as Trainer's `save_metrics` leaves them."""
    results = {}
    for path in sorted(folder.glob("*_results.json")):
        split = path.name.removesuffix("_results.json")
        if split not in ("all", "train"):
            values = read_json(path)
            metrics = {key.removeprefix(f"{split}_"): value for key, value in values.items() if key != "epoch"}
            results[split] = {key: value for key, value in metrics.items() if not re.search(TIMINGS, key)}
    return results


@torch.no_grad()
def add_sample(file: Path, staged: Path, checked: Checked, repo_id: str) -> dict:
    """Writes a clip beside the model, at most half a minute of it, and gives the Hub's entry of it and its labels."""
    name = f"{SAMPLES}/{file.stem}.flac"
    entry = {"example_title": file.stem, "src": f"{Destination(repo_id).url}/resolve/main/{name}"}
    try:
        waveform = decode_audio(file, checked.sampling_rate)[: EXAMPLE_SECONDS * checked.sampling_rate]
        soundfile.write(staged / name, waveform, checked.sampling_rate)
        if checked.is_classifier:
            entry["output"] = best_labels(checked.model, waveform)
    except (OSError, RuntimeError, ValueError) as error:
        raise SharingError(f"An example must be a clip of sound, found {file.name}: {error}") from error
    return entry


def best_labels(model: PreTrainedModel, waveform: np.ndarray) -> list[dict]:
    """The three likeliest labels and their scores."""
    logits = model(torch.tensor(waveform, dtype=model.dtype)[None]).logits[0]
    scores = scores_of(logits, model.config.problem_type)
    best = scores.topk(min(3, len(scores))).indices.tolist()
    return [{"label": model.config.id2label[index], "score": round(float(scores[index]), 4)} for index in best]
