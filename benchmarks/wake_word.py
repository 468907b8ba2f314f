"""How often a taught word is heard in a stream, and how often by mistake in an hour of other sounds.

    python benchmarks/wake_word.py --model_name_or_path runs/wake --label open \\
        --word_file commands/validation.parquet --other_file pool/words_2.parquet

The model is one of `examples/teach.py --unknown`: a label is heard where its score reaches 0.5. Of `word_file` each
clip of the label is heard between two seconds of other sounds each, which are as loud as it. The clips of `other_file`
are heard one after another, without a pause, until `--hours` are over.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import AutoModelForAudioClassification

from hear_hf import HEARStream
from hear_hf.arguments import option, parse_arguments
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.data.surroundings import root_mean_square
from hear_hf.data.unlabelled import UnlabelledAudioArguments, load_whole_source
from hear_hf.data.unusable import UnusableClip, decode_usable
from report import versions

AROUND_SECONDS = 2.0
MIN_SECONDS = 0.1


@dataclass
class WakeWordArguments:
    """Which label of which model to listen for, and to what."""

    model_name_or_path: str = option(help="Listen with this taught model: a folder, or a repository of the Hub.")
    label: str = option(help="Listen for this label.")
    word_file: list[str] = option(help="Tables of labelled clips, of which those of the label are heard.")
    other_file: list[str] = option(help="Tables or audio files of other sounds, heard as one stream.")
    hours: float = option(default=1.0, help="Listen to the others for so long, or as long as they last.")
    window: float = option(default=2.0, help="Seconds to classify at once.")
    hop: float = option(default=0.5, help="Seconds from one window's start to the next one's.")
    pause: float = option(default=2.0, help="Count what is heard again within so many seconds once.")
    max_words: int = option(default=100, help="Hear at most so many clips of the label, drawn at random.")
    seed: int = option(default=0, help="Seed of what is drawn and of the order of the others.")
    output_dir: str = option(default="runs/wake_word", help="Where wake_word.json goes.")


def waveforms(clips: Dataset, rate: int) -> Iterator[np.ndarray]:
    """The clips that can be read."""
    for entry in clips["audio"]:
        try:
            yield decode_usable(entry, MIN_SECONDS, rate)
        except UnusableClip:
            continue


def others(args: WakeWordArguments, rate: int) -> Iterator[np.ndarray]:
    clips = load_whole_source(UnlabelledAudioArguments(train_file=args.other_file), args.seed)
    return waveforms(clips.shuffle(seed=args.seed), rate)


def times_heard(stream: HEARStream, blocks: Iterable[np.ndarray], index: int, pause: float) -> list[float]:
    """The ends of the windows in which the label is heard, each at least so many seconds after the last one."""
    heard: list[float] = []
    last = -np.inf
    for block in blocks:
        for result in stream.push(block):
            if result.scores[index] >= 0.5:
                if result.end - last > pause:
                    heard.append(result.end)
                last = result.end
    return heard


def limited(blocks: Iterable[np.ndarray], num_samples: int, progress: tqdm) -> Iterator[np.ndarray]:
    for block in blocks:
        if num_samples <= 0:
            return
        yield block[:num_samples]
        num_samples -= len(block)
        progress.update(len(block))


def share_heard(stream: HEARStream, args: WakeWordArguments, index: int) -> tuple[float, int]:
    """The share of the clips that are heard between other sounds, and their number."""
    dataset = load_labelled_audio(DataArguments(train_file=args.word_file), args.seed, hold_out=False)["train"]
    names = dataset.features["label"].names
    if args.label not in names:
        raise ValueError(f"`word_file` must have clips of {args.label!r}, found: {names}. Correct the label.")
    own = np.flatnonzero(np.array(dataset["label"][:]) == names.index(args.label))
    chosen = np.random.default_rng(args.seed).permutation(own)[: args.max_words]
    rate, count = stream.sampling_rate, 0
    sounds, around = others(args, rate), round(AROUND_SECONDS * stream.sampling_rate)
    words = list(waveforms(dataset.select(chosen), rate))
    for word in tqdm(words, desc="Hearing the label", unit="clip"):
        parts = []
        for _ in range(2):
            sound = np.resize(next(sounds), around)
            parts.append(sound * (root_mean_square(word) / max(root_mean_square(sound), 1e-5)))
        stream.reset()
        clip = np.concatenate([parts[0], word, parts[1]]).astype(np.float32)
        count += bool(times_heard(stream, [clip], index, args.pause))
    return count / len(words), len(words)


def main(argv: list[str] | None = None) -> dict:
    (args,) = parse_arguments(WakeWordArguments, argv, __doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = AutoModelForAudioClassification.from_pretrained(args.model_name_or_path)
    if model.config.false_alarm_rate is None or args.label not in model.config.label2id:
        raise ValueError(f"{args.model_name_or_path} must have been taught {args.label!r} with --unknown.")
    index, rate = model.config.label2id[args.label], model.config.sampling_rate
    stream = HEARStream(model, rate, args.window, args.hop)
    heard, num_words = share_heard(stream, args, index)

    stream.reset()
    num_samples = round(3600 * args.hours * rate)
    with tqdm(total=num_samples, desc="Hearing the others", unit="sample", unit_scale=True) as progress:
        alarms = times_heard(stream, limited(others(args, rate), num_samples, progress), index, args.pause)
    hours = stream.seconds / 3600
    figures = {
        "heard": heard,
        "num_words": num_words,
        "false_alarms": len(alarms),
        "hours": hours,
        "false_alarms_per_hour": len(alarms) / hours,
    }
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"date": date.today().isoformat(), "versions": versions(), "settings": asdict(args), **figures}
    (folder / "wake_word.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(
        f"{args.label}: {heard:.1%} of {num_words} clips heard, {len(alarms) / hours:.2f} false alarms an hour in "
        f"{hours:.2f} h of other sounds."
    )
    return figures


if __name__ == "__main__":
    main()
