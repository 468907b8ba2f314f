"""Names the sounds in audio files, with any audio classifier and `pipeline("audio-classification")`.

With a HEAR of frames, as finetune_frames.py trains it, it says from when to when each is heard.

    python examples/predict.py checkpoints/hear-tiny examples/sounds
    python examples/predict.py runs/mine one.wav "recordings/**/*.flac" --output_file labels.csv

Folders are read with all below them. Without files it classifies three spoken digits, in voices that
`make demo-training` never heard.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioFrameClassification, pipeline

from hear_hf.adapters import is_adapter, load_adapter
from hear_hf.arguments import command_parser, on_one_line, option
from hear_hf.classifiers import check_classifier, classifies_frames, loading
from hear_hf.data.sources import find_audio, readable
from hear_hf.data.spoken_digits import spoken_digits
from hear_hf.data.unusable import decode_usable, describe
from hear_hf.event_finder import EventFinder
from hear_hf.events import HEAREvent
from hear_hf.rates import check_rates

OUTPUT_SUFFIXES = (".csv", ".jsonl")
NUM_WITHOUT_PROGRESS = 20


@dataclass
class PredictionArguments:
    """How much to show, where to write it, and whose code to run."""

    top_k: int = option(default=3, help="Give this many labels for each file.")
    output_file: Path | None = option(
        default=None,
        help="Write path, label and score of each label, or of each event also its start and end, to this CSV (.csv) "
        "or JSON Lines (.jsonl) file in place of showing them.",
    )
    trust_remote_code: bool = option(default=False, help="Run the code that a repository comes with.")


def demo_clips(count: int = 3) -> dict[str, dict]:
    """Test clips of different digits in different voices, by a description of what is said."""
    clips = spoken_digits()["test"].shuffle(seed=0)
    names = clips.features["label"]
    chosen: dict[int, dict] = {}
    for clip in clips:
        if clip["label"] not in chosen and clip["voice"] not in {other["voice"] for other in chosen.values()}:
            chosen[clip["label"]] = clip
        if len(chosen) == count:
            break
    return {f'"{names.int2str(clip["label"])}" by {clip["voice"]}': clip["audio"] for clip in chosen.values()}


@contextmanager
def shown(names: list[str], top_k: int) -> Iterator[Callable]:
    """Shows a table with a line for each file."""
    width = max(len(on_one_line(name)) for name in names)
    tqdm.write(f"{'file':{width}}  {top_k} likeliest labels and their scores")

    def show(name: str, results: list[dict]) -> None:
        labels = " | ".join(f"{result['label']} {result['score']:.2f}" for result in results)
        tqdm.write(f"{on_one_line(name):{width}}  {on_one_line(labels)}")

    yield show


@contextmanager
def written(path: Path, columns: tuple[str, ...]) -> Iterator[Callable]:
    """Writes a row for each label, or each event, of each file, as soon as it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", buffering=1, encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        if path.suffix == ".csv":
            table.writerow(["path", *columns])

        def write(name: str, results: list) -> None:
            for result in results:
                found = asdict(result) if isinstance(result, HEAREvent) else result
                row = {"path": name, **{column: found[column] for column in columns}}
                row |= {column: round(row[column], 6) for column in columns if column != "label"}
                if path.suffix == ".csv":
                    table.writerow(row.values())
                else:
                    file.write(json.dumps(row) + "\n")

        yield write


@contextmanager
def shown_events() -> Iterator[Callable]:
    """Shows a line for each event, below the name of its file."""

    def show(name: str, events: list[HEAREvent]) -> None:
        tqdm.write(on_one_line(name if events else f"{name}: nothing is heard"))
        for event in events:
            label = on_one_line(event.label)
            tqdm.write(f"{event.start:9.2f} s to {event.end:7.2f} s  {label} {event.score:.2f}")

    yield show


def classify_clips(classifier: Any, top_k: int) -> Callable:
    """Gives the likeliest labels of a clip."""
    options: dict[str, Any] = {"top_k": top_k}
    if classifier.model.config.problem_type == "multi_label_classification":
        options["function_to_apply"] = "sigmoid"  # old releases of Transformers take the softmax
    rate = classifier.feature_extractor.sampling_rate
    return lambda waveform: classifier({"array": waveform, "sampling_rate": rate}, **options)


@dataclass
class Predictor:
    """What a model gives of a waveform, its columns in a file, and how it is shown for files of these names."""

    results: Callable[[np.ndarray], list]
    columns: tuple[str, ...]
    table: Callable[[list[str]], AbstractContextManager[Callable]]
    sampling_rate: int


def load(name: str, args: PredictionArguments) -> Predictor:
    """Loads a classifier of clips, an adapter of one, or a model of frames; ends the command where it is none."""
    source = {"trust_remote_code": args.trust_remote_code}
    with loading(name):
        has_adapter = is_adapter(name)
        if not has_adapter and classifies_frames(AutoConfig.from_pretrained(name, **source)):
            frame_model = AutoModelForAudioFrameClassification.from_pretrained(name, **source)
            feature_extractor = AutoFeatureExtractor.from_pretrained(name, **source)
            check_model(name, frame_model, feature_extractor)
            finder, columns = EventFinder(frame_model, feature_extractor), ("start", "end", "label", "score")
            rate = feature_extractor.sampling_rate
            return Predictor(lambda waveform: finder(waveform).events, columns, lambda names: shown_events(), rate)
        parts: dict[str, Any] = {"model": name}
        if has_adapter:
            parts["model"] = load_adapter(name, args.trust_remote_code).merge_and_unload()
            parts["feature_extractor"] = AutoFeatureExtractor.from_pretrained(name, **source)
        classifier = pipeline("audio-classification", **parts, **source)
        check_model(name, classifier.model, classifier.feature_extractor)
    rate = classifier.feature_extractor.sampling_rate
    table = partial(shown, top_k=args.top_k)
    return Predictor(classify_clips(classifier, args.top_k), ("label", "score"), table, rate)


def check_model(name: str, model: Any, feature_extractor: Any) -> None:
    check_classifier(name, model)
    check_rates(name, model.config, feature_extractor)


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(PredictionArguments, __doc__)
    parser.add_argument("model", help="A folder, or a repository of the Hub.")
    parser.add_argument("files", nargs="*", help="Audio files, folders and patterns; by default three spoken digits.")
    args, named = parser.parse_args_into_dataclasses(argv)
    if args.top_k < 1:
        parser.error(f"--top_k must be at least 1, found {args.top_k}")
    if args.output_file and args.output_file.suffix not in OUTPUT_SUFFIXES:
        parser.error(f"--output_file must end in .csv or .jsonl, found {args.output_file.name}")

    clips = {readable(path): path for path in find_audio(named.files)} if named.files else demo_clips()
    predictor = load(named.model, args)
    table = predictor.table(list(clips))
    num_refused = 0
    progress = tqdm(clips.items(), unit="file", disable=None if len(clips) > NUM_WITHOUT_PROGRESS else True)
    with written(args.output_file, predictor.columns) if args.output_file else table as report:
        for name, audio in progress:
            try:
                report(name, predictor.results(decode_usable(audio, 0, predictor.sampling_rate)))
            except ValueError as error:
                tqdm.write(on_one_line(describe(name, name, error)), file=sys.stderr)
                num_refused += 1
    if args.output_file:
        print(f"The labels of {len(clips) - num_refused} files are in {args.output_file}.")
    if num_refused:
        sys.exit(f"{num_refused} of {len(clips)} files could not be classified.")


if __name__ == "__main__":
    main()
