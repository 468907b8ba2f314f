"""How well sounds and words are known from few clips: linear heads on frozen features, of many draws of the clips.

    python benchmarks/few_shot.py --model_name_or_path checkpoints/hear-tiny mn04 speech_embedding random \\
        --trust_remote_code --esc50_file 'esc50/fold?.parquet' \\
        --digits_train_file fsdd/train.parquet --digits_test_file fsdd/test.parquet \\
        --commands_train_file commands/train.parquet --commands_validation_file commands/validation.parquet

Any of the three data sets may be left out; docs/benchmarks.md makes their tables. Each model reads each clip once. A
head is what `examples/teach.py` makes of the clips as they are. Its strength is chosen by cross-validation within the
clips of the first draw, and serves the other draws of as many clips.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset, concatenate_datasets
from tqdm.auto import tqdm
from transformers import set_seed

from hear_hf.arguments import option, parse_arguments
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.evaluation.folds import divide
from hear_hf.evaluation.logistic import DEFAULT_STRENGTH, Views, cross_validate, fit_heads
from hear_hf.evaluation.probing import FeatureArguments, extract_features, load_encoders
from knowledge import DecodedClips
from report import plt, software_and_date, write_models

NUM_FOLDS = 5


@dataclass
class FewShotArguments(FeatureArguments):
    """Which models to compare, on which clips and how many of them."""

    esc50_file: list[str] | None = option(
        default=None, help="Tables of ESC-50 with a column `fold`: trained on folds 1 to 3, scored on fold 4."
    )
    digits_train_file: list[str] | None = option(
        default=None, help="Tables of spoken digits (FSDD): takes to train on."
    )
    digits_test_file: list[str] | None = option(default=None, help="And to score on: other takes.")
    commands_train_file: list[str] | None = option(default=None, help="Tables of spoken commands to train on.")
    commands_validation_file: list[str] | None = option(default=None, help="And to score on: other speakers.")
    clips_per_class: list[int] = option(
        default_factory=lambda: [1, 5, 10, 30], help="Teach so many clips of each class, or all where there are fewer."
    )
    num_draws: int = option(default=10, help="Draw the clips so many times.")
    pool_per_class: int | None = option(
        default=60, help="Draw them from at most so many clips of each class, themselves drawn at random."
    )
    max_test_clips: int | None = option(default=1000, help="Score on at most this many clips, drawn at random.")
    min_length_seconds: float = option(default=1.5, help="Centre shorter clips in silence of this length.")
    output_dir: str = option(default="runs/few_shot", help="Where the results go.")


class Task(NamedTuple):
    """Clips to draw from, and clips to score on."""

    name: str
    train: Dataset
    test: Dataset


def tasks(args: FewShotArguments) -> Iterator[Task]:
    """Loads one data set at a time."""
    if args.esc50_file:
        clips = load_whole(args, ("fold",), train_file=args.esc50_file)
        folds = np.array(clips["fold"][:]).astype(int)
        train, test = (np.flatnonzero(np.isin(folds, numbers)) for numbers in ([1, 2, 3], [4]))
        yield Task("ESC-50, folds 1 to 3 -> 4", clips.select(train), clips.select(test))
    for name, train_files, test_files in (
        ("digits, other takes", args.digits_train_file, args.digits_test_file),
        ("commands, other speakers", args.commands_train_file, args.commands_validation_file),
    ):
        if train_files:
            yield Task(name, load_whole(args, train_file=train_files), load_whole(args, train_file=test_files))


def load_whole(args: FewShotArguments, keep_columns: tuple[str, ...] = (), **source) -> Dataset:
    data_args = DataArguments(clips_per_class=args.pool_per_class, **source)
    return load_labelled_audio(data_args, args.seed, keep_columns, hold_out=False)["train"]


def draws(labels: np.ndarray, size: int, args: FewShotArguments) -> list[np.ndarray]:
    """Positions of so many clips of each class, for each draw; one draw is enough where all clips are taken."""
    rng = np.random.default_rng([args.seed, size])
    of_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    num_draws = 1 if size >= max(map(len, of_class)) else args.num_draws
    return [np.sort(np.concatenate([rng.permutation(clips)[:size] for clips in of_class])) for _ in range(num_draws)]


def strength_for(features: np.ndarray, labels: np.ndarray, args: FewShotArguments) -> float:
    if np.bincount(labels).min() < 2:
        return DEFAULT_STRENGTH
    divisions = divide(labels, min(NUM_FOLDS, np.bincount(labels).max()), args.seed)
    return cross_validate(Views(features, np.arange(len(labels))), labels, divisions).strength


def accuracies(
    features: np.ndarray, labels: np.ndarray, positions: list[np.ndarray], test: tuple, args: FewShotArguments
) -> dict:
    """The accuracy of each draw on the test clips."""
    strength = strength_for(features[positions[0]], labels[positions[0]], args)
    scores = []
    for chosen in positions:
        (head,) = fit_heads(features[chosen], labels[chosen], np.ones(len(chosen)), [strength])
        scores.append(float((head(test[0]).argmax(1) == test[1]).mean()))
    return {"score": float(np.mean(scores)), "std": float(np.std(scores)), "scores": scores, "C": strength}


def measure(args: FewShotArguments, rows: dict[str, dict]) -> None:
    """Adds to each model's row the scores of each task by the number of clips."""
    encoders = dict(load_encoders(args))
    for task in tasks(args):
        labels = np.array(task.train["label"][:])
        positions = {size: draws(labels, size, args) for size in args.clips_per_class}
        used = np.unique(np.concatenate(sum(positions.values(), [])))  # of thousands, only these are read
        scored = np.random.default_rng(args.seed).permutation(len(task.test))[: args.max_test_clips]
        train, test = task.train.select(used), task.test.select(np.sort(scored))
        audio = DecodedClips(concatenate_datasets([part.select_columns("audio") for part in (train, test)]))
        test_labels = np.array(test["label"][:])
        for name, encoder in encoders.items():
            last = encoder.num_hidden_states - 1
            features = extract_features(name, encoder, audio, [last], args)[last]
            whole = np.zeros((len(labels), features.shape[1]), features.dtype)
            whole[used] = features[: len(used)]
            row = rows.setdefault(name, {"width": features.shape[1], "tasks": {}})["tasks"].setdefault(task.name, {})
            for size in tqdm(args.clips_per_class, desc=f"Teaching {name}", leave=False):
                found = accuracies(whole, labels, positions[size], (features[len(used) :], test_labels), args)
                row[str(size)] = found | {"num_scored": len(test)}
                print(f"{name}, {task.name}, {size}: {found['score']:.1%} ± {found['std']:.1%}", flush=True)
            write_models(args.output_dir, args, rows, markdown(rows, args))
            plot(rows, args, Path(args.output_dir, "results.png"))


def table(rows: dict[str, dict], args: FewShotArguments) -> str:
    """Models by clips a class in Markdown, a table for each task, in per cent with the spread over the draws."""
    parts = []
    for task in dict.fromkeys(task for row in rows.values() for task in row["tasks"]):
        parts.append(f"| {task} | " + " | ".join(map(str, args.clips_per_class)) + " |")
        parts.append("|---|" + "---|" * len(args.clips_per_class))
        for name, row in rows.items():
            cells = [cell(row["tasks"].get(task, {}).get(str(size))) for size in args.clips_per_class]
            parts.append(f"| {Path(name).name} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def cell(result: dict | None) -> str:
    return f"{100 * result['score']:.1f} ± {100 * result['std']:.1f}" if result else ""


def plot(rows: dict[str, dict], args: FewShotArguments, path: Path) -> None:
    """Accuracy by clips a class, a panel for each task."""
    names = list(dict.fromkeys(task for row in rows.values() for task in row["tasks"]))
    figure, panels = plt.subplots(1, len(names), figsize=(4 * len(names), 3.5), layout="constrained", squeeze=False)
    for axes, task in zip(panels[0], names, strict=True):
        for name, row in rows.items():
            found = row["tasks"].get(task, {})
            sizes = [size for size in args.clips_per_class if str(size) in found]
            score, std = ([100 * found[str(size)][key] for size in sizes] for key in ("score", "std"))
            axes.errorbar(sizes, score, std, marker="o", capsize=3, label=Path(name).name)
        axes.set(title=task, xlabel="clips a class", ylabel="accuracy, %", xscale="log", ylim=(0, 100))
        axes.set_xticks(args.clips_per_class, map(str, args.clips_per_class))
        axes.grid(alpha=0.3)
    panels[0][0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def markdown(rows: dict[str, dict], args: FewShotArguments) -> str:
    return (
        f"Accuracy in per cent by clips a class, mean and standard deviation of {args.num_draws} draws. Frames' "
        f"{', '.join(args.pooling)}; clips of at least {args.min_length_seconds:g} s; seed {args.seed}; "
        f"{software_and_date()}.\n\n{table(rows, args)}"
    )


def main(argv: list[str] | None = None) -> dict[str, dict]:
    (args,) = parse_arguments(FewShotArguments, argv, __doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for pair in (("digits_train_file", "digits_test_file"), ("commands_train_file", "commands_validation_file")):
        if len([name for name in pair if getattr(args, name)]) == 1:
            raise ValueError(f"`{pair[0]}` and `{pair[1]}` must come together, found one. Give both.")
    set_seed(args.seed)
    rows: dict[str, dict] = {}
    measure(args, rows)
    if not rows:
        raise ValueError("There must be clips, found none: give --esc50_file, --digits_train_file or others.")
    print(f"\n{markdown(rows, args)}\nWritten to {args.output_dir}.")
    return rows


if __name__ == "__main__":
    main()
