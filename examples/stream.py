"""Names the sounds in live audio as it comes in: from a file, a microphone, or raw samples on standard input.

    python examples/stream.py runs/digits recording.flac other.mp3
    python examples/stream.py runs/digits --microphone
    ffmpeg -i video.mp4 -f s16le -ac 1 -ar 16000 - | python examples/stream.py runs/digits -

Prints a line whenever the most likely label of the last seconds changes, or with a model of frames each sound when it
is over, and at the end the label of the whole: of a file that breaks in the middle, of what was heard until there. A
model that was taught beside unknown sounds names all labels that reach its thresholds, or none. Ctrl-C ends it early.
The microphone needs `pip install sounddevice`.
"""

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np

from hear_hf import HEARStream, HEARStreamResult
from hear_hf.arguments import command_parser, on_one_line, option
from hear_hf.classifiers import check_classifier, load_any_classifier, loading
from hear_hf.data.live import live_blocks
from hear_hf.events import EventTracker, HEAREvent


@dataclass
class StreamingArguments:
    """Whether to listen, how to cut the audio into windows, and how to show the results."""

    microphone: bool = option(default=False, help="Listen to the default microphone until Ctrl-C.")
    window: float = option(default=2.0, help="Seconds to classify at once.")
    hop: float = option(default=0.5, help="Seconds from one window's start to the next one's.")
    json: bool = option(
        default=False,
        help="Print every window, or with a model of frames every sound, and the whole, as a line of JSON. Of several "
        "files, a line names each.",
    )
    trust_remote_code: bool = option(default=False, help="Run the code that a repository comes with.")


def describe(result: HEARStreamResult, config: Any) -> dict:
    """The likeliest label; where thresholds were chosen, which lie at 0.5, also all labels that reach theirs."""
    best = int(result.scores.argmax())
    found = {
        "start": result.start,
        "end": result.end,
        "label": config.id2label[best],
        "score": result.scores[best].item(),
    }
    if getattr(config, "false_alarm_rate", None) is not None:
        heard = [index for index in result.scores.argsort(descending=True).tolist() if result.scores[index] >= 0.5]
        found["heard"] = {config.id2label[index]: result.scores[index].item() for index in heard}
    return found


def shown(found: dict) -> dict[str, float]:
    """The labels to show, with their scores."""
    return found.get("heard", {found["label"]: found["score"]})


def written(found: dict) -> str:
    names = ", ".join(f"{label} {score:.1%}" for label, score in shown(found).items())
    return on_one_line(names) or "none of the labels"


def print_windows(stream: HEARStream, blocks: Iterable[np.ndarray], as_json: bool) -> None:
    before = None
    for block in blocks:
        for result in stream.push(block):
            found = describe(result, stream.model.config)
            if as_json:
                print(json.dumps(found), flush=True)
            elif set(shown(found)) != before:
                print(f"{found['end']:7.1f} s: {written(found)}", flush=True)
            before = set(shown(found))


def event_tracker(stream: HEARStream) -> EventTracker:
    config = stream.model.config
    names = [config.id2label[index] for index in range(len(config.id2label))]
    return EventTracker(names, config.event_thresholds, config.event_median_frames)


def print_events(events: list[HEAREvent], as_json: bool) -> None:
    for event in events:
        text = f"{event.start:7.2f} s to {event.end:.2f} s: {on_one_line(event.label)} {event.score:.1%}"
        print(json.dumps(asdict(event)) if as_json else text, flush=True)


def listen(stream: HEARStream, source: str | None, as_json: bool) -> list[str]:
    """Prints what is heard until the source ends or breaks, and returns what went wrong."""
    errors, tracker = [], event_tracker(stream) if stream.has_frames else None
    stream.reset()
    try:
        with suppress(KeyboardInterrupt):  # the end of a microphone
            blocks = live_blocks(source, stream.sampling_rate)
            if tracker is None:
                print_windows(stream, blocks, as_json)
            else:  # each sound when it is over
                for result in chain.from_iterable(map(stream.push, blocks)):
                    print_events(tracker.push(result.frame_scores.numpy()), as_json)
    except (ImportError, OSError, TypeError, ValueError) as error:
        errors.append(str(error) if str(source) in str(error) else f"{source}: {error}")
        if stream.seconds == 0:
            return errors
    try:
        result = stream.finish()
    except ValueError as error:
        return errors or [f"{source}: {error}"]
    if tracker is not None:
        print_events(tracker.push(result.frame_scores.numpy()) + tracker.finish(), as_json)
    whole = describe(result, stream.model.config)
    print(json.dumps(whole) if as_json else f"{whole['end']:7.1f} s in all: {written(whole)}")
    return errors


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(StreamingArguments, __doc__)
    parser.add_argument("model", help="A folder, or a repository of the Hub.")
    parser.add_argument(
        "sources", nargs="*", help="Audio files, one after another, or - for int16 mono samples at the model's rate."
    )
    args, named = parser.parse_args_into_dataclasses(argv)
    if args.microphone == bool(named.sources):
        parser.error("give either an audio file, or - for standard input, or --microphone")

    with loading(named.model):
        model = load_any_classifier(named.model, trust_remote_code=args.trust_remote_code)
        check_classifier(named.model, model)
    try:
        stream = HEARStream(model, getattr(model.config, "sampling_rate", 0), args.window, args.hop)
    except (TypeError, ValueError) as error:
        sys.exit(str(error))
    errors = []
    for source in named.sources or [None]:
        if len(named.sources) > 1:
            print(json.dumps({"file": source}) if args.json else f"{on_one_line(source)}:", flush=True)
        errors += listen(stream, source, args.json)
    if errors:
        sys.exit("\n".join(map(on_one_line, errors)))


if __name__ == "__main__":
    main()
