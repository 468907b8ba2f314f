"""What checkpoints know: frozen probes of sounds, words and speakers, beside each other, in one run.

    python benchmarks/knowledge.py --model_name_or_path runs/distilled mn04 speech_embedding --trust_remote_code \\
        --esc50_file esc50/fold?.parquet --digits_train_file fsdd/train.parquet --digits_test_file fsdd/test.parquet \\
        --commands_train_file commands/train.parquet --commands_validation_file commands/validation.parquet

Any of the three data sets may be left out. Each is read from tables with the columns `audio` and `label`; those of
ESC-50 also have `fold`, those of the digits `speaker`. docs/benchmarks.md makes them from the public repositories.
With `--teacher_name_or_path` and `--agreement_file`, classifiers with the teacher's labels are also compared with it.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import AutoConfig, pipeline, set_seed

from hear_hf.arguments import option, parse_arguments
from hear_hf.data.decoding import decode_audio, read_audio
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.data.unlabelled import UnlabelledAudioArguments, load_whole_source
from hear_hf.data.unusable import skip_unusable
from hear_hf.evaluation.folds import Clips, Fold, gather_clips, make_folds, tuning_divisions
from hear_hf.evaluation.probing import FeatureArguments, extract_features, load_encoders, probe_layer
from report import plt, software_and_date, write_models

AGREEMENT = "top label as the teacher's"


@dataclass
class KnowledgeArguments(FeatureArguments):
    """Which models to compare, and on which clips."""

    esc50_file: list[str] | None = option(
        default=None, help="Tables of ESC-50 with a column `fold`, or patterns such as 'esc50/fold?.parquet'."
    )
    esc50_train_folds: list[int] = option(default_factory=lambda: [1, 2, 3], help="Folds to train on.")
    esc50_test_folds: list[int] = option(default_factory=lambda: [4], help="Folds to score on.")
    digits_train_file: list[str] | None = option(
        default=None, help="Tables of spoken digits (FSDD) with a column `speaker`: the takes to train on."
    )
    digits_test_file: list[str] | None = option(default=None, help="The takes that speakers are told apart on.")
    commands_train_file: list[str] | None = option(default=None, help="Tables of spoken commands to train on.")
    commands_validation_file: list[str] | None = option(default=None, help="And to score on: other speakers.")
    commands_per_class: int | None = option(
        default=60, help="Train on so many clips of each command, drawn at random."
    )
    teacher_name_or_path: str | None = option(default=None, help="A labelled model to compare the top label with.")
    agreement_file: list[str] | None = option(default=None, help="Tables of unlabelled clips to compare it on.")
    max_agreement_clips: int = option(default=1000, help="At most this many of them, drawn at random.")
    min_length_seconds: float = option(
        default=1.5,
        help="Centre shorter clips in silence of this length; some models know words only with silence around.",
    )
    output_dir: str = option(default="runs/knowledge", help="Where the results go.")

    def __post_init__(self):
        super().__post_init__()
        pairs = {
            "digits_train_file": "digits_test_file",
            "commands_train_file": "commands_validation_file",
            "teacher_name_or_path": "agreement_file",
        }
        for pair in pairs.items():
            given = [name for name in pair if getattr(self, name)]
            if len(given) == 1:
                raise ValueError(f"`{pair[0]}` and `{pair[1]}` must come together, found: {given[0]}. Give both.")
        if not any(getattr(self, name) for name in ("esc50_file", *pairs)):
            raise ValueError("There must be clips, found none: give --esc50_file, --digits_train_file or others.")


class Task(NamedTuple):
    """What to tell apart, by the labels of the clips, and on which of them to train and to score."""

    name: str
    labels: np.ndarray
    folds: list[Fold]


class DecodedClips:
    """Clips in memory at their own rate, read as a `Dataset` is: decoding takes as long as a small model does."""

    def __init__(self, audio: Dataset):
        self.entries = [self.decode(row["audio"]) for row in tqdm(audio, desc="Decoding", unit="clip", leave=False)]

    @staticmethod
    def decode(entry: dict) -> dict:
        samples, rate = read_audio(entry)
        return {"array": samples, "sampling_rate": rate}

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, rows: slice) -> dict[str, list[dict]]:
        return {"audio": self.entries[rows]}


def load_clips(args: KnowledgeArguments, group: str | None = None, **source) -> Clips:
    keep_columns = () if group is None else (group,)
    return gather_clips(load_labelled_audio(DataArguments(**source), args.seed, keep_columns), group)


def sounds(args: KnowledgeArguments) -> tuple[Clips, list[Task]]:
    """ESC-50: trained on some folds, scored on others."""
    clips = load_clips(args, "fold", train_file=args.esc50_file)
    folds, chosen = clips.groups.astype(int), (args.esc50_train_folds, args.esc50_test_folds)
    if missing := set(sum(chosen, [])) - set(folds.tolist()):
        raise ValueError(f"Folds of ESC-50 must be some of {sorted(set(folds.tolist()))}, found: {sorted(missing)}.")
    train, test = (np.flatnonzero(np.isin(folds, numbers)) for numbers in chosen)
    name = "ESC-50, folds {} -> {}".format(*("+".join(map(str, numbers)) for numbers in chosen))
    return clips, [Task(name, clips.labels, [Fold(train, tuning_divisions(clips, train, args.seed), test)])]


def digits(args: KnowledgeArguments) -> tuple[Clips, list[Task]]:
    """FSDD: the digits of each speaker by the others, and the speakers in takes that were not trained on."""
    files = {"train_file": args.digits_train_file, "validation_file": args.digits_test_file}
    clips = load_clips(args, "speaker", **files)
    by_speaker = clips._replace(labels=np.unique(clips.groups, return_inverse=True)[1], groups=None)
    return clips, [
        Task("digits, each speaker left out", clips.labels, make_folds(clips, None, args.seed)),
        Task("speakers, other takes", by_speaker.labels, make_folds(by_speaker, None, args.seed)),
    ]


def commands(args: KnowledgeArguments) -> tuple[Clips, list[Task]]:
    """Spoken commands: trained on some clips of each, scored on the validation clips."""
    files = {"train_file": args.commands_train_file, "validation_file": args.commands_validation_file}
    clips = load_clips(args, **files, clips_per_class=args.commands_per_class)
    name = f"commands, {args.commands_per_class or 'all'} a class"
    return clips, [Task(name, clips.labels, make_folds(clips, None, args.seed))]


def data_sets(args: KnowledgeArguments) -> Iterator[tuple[Clips, list[Task]]]:
    """Loads one data set at a time."""
    for load, files in (
        (sounds, args.esc50_file),
        (digits, args.digits_train_file),
        (commands, args.commands_train_file),
    ):
        if files:
            yield load(args)


def probe(args: KnowledgeArguments, rows: dict[str, dict]) -> None:
    """Adds to each model's row the score of each task; each clip is read once by each model."""
    encoders = dict(load_encoders(args))
    for name, encoder in encoders.items():
        rows[name] = {"parameters": encoder.model.num_parameters(), "tasks": {}}
    for clips, tasks in data_sets(args):
        audio = DecodedClips(clips.audio)
        for name, encoder in encoders.items():
            last = encoder.num_hidden_states - 1
            features = extract_features(name, encoder, audio, [last], args)[last]
            for task in tasks:
                result = probe_layer(features, task.labels, task.folds)
                rows[name]["tasks"][task.name] = {
                    "score": float(np.mean(result.scores)),
                    "num_scored": sum(len(fold.test) for fold in task.folds),
                    "scores": result.scores,
                    "validation_scores": result.validation_scores,
                    "C": result.regularisation,
                }
                print(f"{name}, {task.name}: {rows[name]['tasks'][task.name]['score']:.1%}", flush=True)


def label_names(name: str, args: KnowledgeArguments) -> set[str]:
    """The labels of a classifier; none of another model."""
    config = AutoConfig.from_pretrained(name, trust_remote_code=args.trust_remote_code)
    is_classifier = (config.architectures or [""])[0].endswith("Classification")
    return set(config.id2label.values()) if is_classifier else set()


def top_labels(name: str, audio: Dataset, args: KnowledgeArguments) -> list[str]:
    """The likeliest label of each clip, at the model's own rate."""
    classifier = pipeline("audio-classification", name, trust_remote_code=args.trust_remote_code, top_k=1)
    rate = classifier.feature_extractor.sampling_rate
    max_samples = int(args.max_length_seconds * rate)
    labels = []
    for row in tqdm(audio, desc=f"Labels of {name}", unit="clip"):
        clip = {"array": decode_audio(row["audio"], rate)[:max_samples], "sampling_rate": rate}
        labels.append(classifier(clip)[0]["label"])
    return labels


def compare_with_teacher(args: KnowledgeArguments, rows: dict[str, dict]) -> None:
    """Adds to the row of each model with the teacher's labels how often its top label is the teacher's."""
    data_args = UnlabelledAudioArguments(train_file=args.agreement_file, max_train_samples=args.max_agreement_clips)
    clips = load_whole_source(data_args, args.seed)
    audio = skip_unusable({"agreement": clips}, data_args.max_unusable_share)["agreement"]
    teacher, names = top_labels(args.teacher_name_or_path, audio, args), label_names(args.teacher_name_or_path, args)
    for name in args.model_name_or_path:
        if name in rows and name != args.teacher_name_or_path and label_names(name, args) == names:
            found = top_labels(name, audio, args)
            score = float(np.mean([ours == theirs for ours, theirs in zip(found, teacher, strict=True)]))
            rows[name]["tasks"][AGREEMENT] = {"score": score, "num_scored": len(audio)}


def table(rows: dict[str, dict]) -> str:
    """Models by tasks in Markdown, in per cent with the standard error."""
    tasks = task_names(rows)
    lines = ["| model | parameters | " + " | ".join(tasks) + " |", "|---|---|" + "---|" * len(tasks)]
    for name, row in rows.items():
        cells = [cell(row["tasks"][task]) if task in row["tasks"] else "" for task in tasks]
        lines.append(f"| {Path(name).name} | {row['parameters'] / 1e6:.1f} M | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def task_names(rows: dict[str, dict]) -> list[str]:
    return list(dict.fromkeys(task for row in rows.values() for task in row["tasks"]))


def cell(result: dict) -> str:
    score = result["score"]
    return f"{100 * score:.1f} ± {100 * (score * (1 - score) / result['num_scored']) ** 0.5:.1f}"


def plot(rows: dict[str, dict], path: Path) -> None:
    """Bars of all models for each task."""
    tasks = task_names(rows)
    figure, axes = plt.subplots(figsize=(8, 1 + len(tasks) * (0.3 + 0.2 * len(rows))), layout="constrained")
    height = 0.8 / len(rows)
    for i, (name, row) in enumerate(rows.items()):
        scores = [100 * row["tasks"].get(task, {"score": float("nan")})["score"] for task in tasks]
        bars = axes.barh(np.arange(len(tasks)) + i * height, scores, height, label=Path(name).name)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
    axes.set(yticks=np.arange(len(tasks)) + 0.4 - height / 2, yticklabels=tasks, xlim=(0, 108), xlabel="%")
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def markdown(rows: dict[str, dict], args: KnowledgeArguments) -> str:
    return (
        f"Per cent, with the standard error; parameters without heads. Frames' {', '.join(args.pooling)}; clips of at "
        f"least {args.min_length_seconds:g} s; seed {args.seed}; {software_and_date()}.\n\n{table(rows)}\n"
    )


def main(argv: list[str] | None = None) -> dict[str, dict]:
    (args,) = parse_arguments(KnowledgeArguments, argv, __doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    set_seed(args.seed)
    rows: dict[str, dict] = {}
    probe(args, rows)
    if args.agreement_file:
        compare_with_teacher(args, rows)
    text = markdown(rows, args)
    write_models(args.output_dir, args, rows, text)
    plot(rows, Path(args.output_dir, "results.png"))
    print(f"\n{text}\nWritten to {args.output_dir}.")
    return rows


if __name__ == "__main__":
    main()
