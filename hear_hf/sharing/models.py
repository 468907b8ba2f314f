"""Publishes a model's folder on the Hub, after checking that it is whole and loads where `hear_hf` is absent.

    python examples/push_to_hub.py runs/mine me/my-model --dry_run
    python examples/push_to_hub.py runs/mine me/my-model --private

A demo of a published model, as a Space:

    python examples/push_to_hub.py me/my-model me/my-demo --space
"""

import argparse
import ast
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from huggingface_hub import ModelCard, SpaceCard
from huggingface_hub.errors import RepositoryNotFoundError
from transformers import PreTrainedModel

from audio_decoding import decode_audio
from hub_checks import Checked, check_card, check_models, compare, is_stale, read_json, stage
from hub_upload import (
    Destination,
    SharingError,
    add_destination_arguments,
    announce,
    destination,
    explain,
    publish,
    show,
)
from model_cards import METRIC_NAMES, PLACEHOLDER, classifier_card, pretraining_card

EXAMPLES = Path(__file__).parent
SPACE = EXAMPLES / "space"
SPACE_MODEL = "model_id.txt"  # where the Space's app.py reads which model to serve
TRAINER_DRAFT = "generated automatically according to the information the Trainer had access to"
SAMPLES = "samples"  # the repository's folder of example clips
EXAMPLE_SECONDS = 30
TIMINGS = "runtime|_per_second$"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FOLDER", help="The model's folder; with --space its repository.")
    parser.add_argument("repo_id", metavar="REPOSITORY", help="Where to, as OWNER/NAME.")
    add_destination_arguments(parser)
    parser.add_argument("--space", action="store_true", help="Publish the demo of examples/space for this model.")
    card = parser.add_argument_group("the model card", "What is not given stays as README.md has it.")
    card.add_argument("--license", help="As the Hub names licences (a new card: mit).")
    card.add_argument("--datasets", nargs="+", help="The training data, by their names on the Hub.")
    card.add_argument("--base_model", "--base-model", help="What the model started from, by its name on the Hub.")
    card.add_argument("--examples", nargs="+", default=[], help="Clips to show with what the model hears in them.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            (share_space if args.space else share_model)(args, Path(temporary) / "staged")
    except SharingError as error:
        raise SystemExit(str(error)) from error


def share_model(args: argparse.Namespace, staged: Path) -> None:
    target = destination(args, "model")
    left_out = stage(Path(args.source), staged)
    checked = check_models(staged)
    card = complete_card(staged, checked[0], args, name=Path(args.source).resolve().name)
    check_card(card, staged)
    card.save(staged / "README.md")
    print("The folder is whole: it loads, runs a clip, and gives the same outputs where hear_hf is absent.")
    show(staged, left_out)
    if args.dry_run:
        return

    commit = publish(staged, target, is_stale)
    announce(commit, target)
    print("Downloading it again, to compare ...")
    try:
        compare(checked, target.name, commit.oid, target.token)
    except SharingError as error:
        raise SharingError(f"The files are on the Hub as commit {commit.oid}, but: {error}") from error
    print("The downloaded model gives the same outputs.")


def share_space(args: argparse.Namespace, staged: Path) -> None:
    target = destination(args, "space")
    model = Destination(args.source, token=target.token)
    stage_space(staged, model.name)
    show(staged, {})
    if args.dry_run:
        return
    try:
        if model.api().model_info(model.name).private and not args.private:
            print(f"{model.name} is private: give the Space a secret HF_TOKEN that may read it.")
    except RepositoryNotFoundError as error:
        raise SharingError(
            f"The Space's model must be on the Hub, found no {model.name}: publish it first."
        ) from error
    except Exception as error:
        raise SharingError(explain(error, model)) from error
    announce(publish(staged, target, lambda path: False), target)


def stage_space(staged: Path, model: str) -> None:
    """The demo, the modules beside it that it imports, and which model it serves."""
    shutil.copytree(SPACE, staged, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    waiting = list(staged.glob("*.py"))
    while waiting:
        for name in imported_modules(waiting.pop()):
            if (EXAMPLES / f"{name}.py").is_file() and not (staged / f"{name}.py").exists():
                waiting.append(Path(shutil.copyfile(EXAMPLES / f"{name}.py", staged / f"{name}.py")))
    (staged / SPACE_MODEL).write_text(f"{model}\n", encoding="utf-8")
    card = SpaceCard.load(staged / "README.md")
    card.data["models"] = [model]
    card.save(staged / "README.md")


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


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
    known = {"datasets": args.datasets, "license": args.license or "mit", "repository": args.repo_id}
    split = "test" if "test" in results else next(iter(results), "held-out")
    scores = results.get(split, {})
    if not checked.is_classifier:
        return pretraining_card(checked.model, name, scores, **known)
    scores = {metric: score for metric, score in scores.items() if metric in METRIC_NAMES}
    return classifier_card(
        checked.model, checked.sampling_rate, name, scores, split, base_model=args.base_model, **known
    )


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
    logits = model(torch.tensor(waveform, dtype=model.dtype)[None]).logits[0].float()
    is_single = model.config.problem_type != "multi_label_classification"
    scores = logits.softmax(-1) if is_single else logits.sigmoid()
    best = scores.topk(min(3, len(scores))).indices.tolist()
    return [{"label": model.config.id2label[index], "score": round(float(scores[index]), 4)} for index in best]


if __name__ == "__main__":
    main()
