"""Names the sounds in live audio as it comes in: from a file, a microphone, or raw samples on standard input.

    python examples/stream.py runs/digits recording.flac other.mp3
    python examples/stream.py runs/digits --microphone
    ffmpeg -i video.mp4 -f s16le -ac 1 -ar 16000 - | python examples/stream.py runs/digits -

Prints a line whenever the most likely label of the last seconds changes, and at the end the label of the whole: of a
file that breaks in the middle, of what was heard until there. Ctrl-C ends it early. The microphone needs
`pip install sounddevice`.
"""

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from transformers import AutoModelForAudioClassification

from hear_hf import HEARStream, HEARStreamResult
from hear_hf.arguments import command_parser, on_one_line, option
from hear_hf.classifiers import check_classifier, loading
from hear_hf.data.live import live_blocks


@dataclass
class StreamingArguments:
    """Whether to listen, how to cut the audio into windows, and how to show the results."""

    microphone: bool = option(default=False, help="Listen to the default microphone until Ctrl-C.")
    window: float = option(default=2.0, help="Seconds to classify at once.")
    hop: float = option(default=0.5, help="Seconds from one window's start to the next one's.")
    json: bool = option(
        default=False,
        help="Print every window, and the whole, as a line of JSON. Of several files, a line names each.",
    )
    trust_remote_code: bool = option(default=False, help="Run the code that a repository comes with.")


def describe(result: HEARStreamResult, labels: dict[int, str]) -> dict:
    best = int(result.scores.argmax())
    return {"start": result.start, "end": result.end, "label": labels[best], "score": result.scores[best].item()}


def print_windows(stream: HEARStream, blocks: Iterable[np.ndarray], labels: dict[int, str], as_json: bool) -> None:
    shown = None
    for block in blocks:
        for result in stream.push(block):
            found = describe(result, labels)
            if as_json:
                print(json.dumps(found), flush=True)
            elif found["label"] != shown:
                print(f"{found['end']:7.1f} s: {found['label']} {found['score']:.1%}", flush=True)
            shown = found["label"]


def listen(stream: HEARStream, source: str | None, labels: dict[int, str], as_json: bool) -> list[str]:
    """Prints what is heard until the source ends or breaks, and returns what went wrong."""
    errors = []
    stream.reset()
    try:
        with suppress(KeyboardInterrupt):  # the end of a microphone
            print_windows(stream, live_blocks(source, stream.sampling_rate), labels, as_json)
    except (ImportError, OSError, TypeError, ValueError) as error:
        errors.append(str(error))
        if stream.seconds == 0:
            return errors
    try:
        whole = describe(stream.finish(), labels)
    except ValueError as error:
        return errors or [f"{source}: {error}"]
    print(json.dumps(whole) if as_json else f"{whole['end']:7.1f} s in all: {whole['label']} {whole['score']:.1%}")
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
        model = AutoModelForAudioClassification.from_pretrained(named.model, trust_remote_code=args.trust_remote_code)
        check_classifier(named.model, model)
    labels = model.config.id2label
    try:
        stream = HEARStream(model, getattr(model.config, "sampling_rate", 0), args.window, args.hop)
    except (TypeError, ValueError) as error:
        sys.exit(str(error))
    errors = []
    for source in named.sources or [None]:
        if len(named.sources) > 1:
            print(json.dumps({"file": source}) if args.json else f"{on_one_line(source)}:", flush=True)
        errors += listen(stream, source, labels, args.json)
    if errors:
        sys.exit("\n".join(map(on_one_line, errors)))


if __name__ == "__main__":
    main()
