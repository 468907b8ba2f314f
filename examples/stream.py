"""Names the sounds in live audio as it comes in: from a file, a microphone, or raw samples on standard input.

    python examples/stream.py runs/digits recording.flac
    python examples/stream.py runs/digits --microphone
    ffmpeg -i video.mp4 -f s16le -ac 1 -ar 16000 - | python examples/stream.py runs/digits -

Prints a line whenever the most likely label of the last seconds changes, and at the end the label of the whole. Ctrl-C
ends it early. The microphone needs `pip install sounddevice`.
"""

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from transformers import AutoModelForAudioClassification

from hear_hf import HEARStream, HEARStreamResult
from hear_hf.arguments import command_parser, option
from hear_hf.data.live import live_blocks


@dataclass
class StreamingArguments:
    """Whether to listen, how to cut the audio into windows, and how to show the results."""

    microphone: bool = option(default=False, help="Listen to the default microphone until Ctrl-C.")
    window: float = option(default=2.0, help="Seconds to classify at once.")
    hop: float = option(default=0.5, help="Seconds from one window's start to the next one's.")
    json: bool = option(default=False, help="Print every window, and the whole, as a line of JSON.")
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


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(StreamingArguments, __doc__)
    parser.add_argument("model", help="A folder, or a repository of the Hub.")
    parser.add_argument("source", nargs="?", help="An audio file, or - for int16 mono samples at the model's rate.")
    args, named = parser.parse_args_into_dataclasses(argv)
    if args.microphone == (named.source is not None):
        parser.error("give either an audio file, or - for standard input, or --microphone")

    model = AutoModelForAudioClassification.from_pretrained(named.model, trust_remote_code=args.trust_remote_code)
    rate, labels = model.config.sampling_rate, model.config.id2label
    try:
        stream = HEARStream(model, rate, args.window, args.hop)
        with suppress(KeyboardInterrupt):  # the end of a microphone
            print_windows(stream, live_blocks(named.source, rate), labels, args.json)
        whole = describe(stream.finish(), labels)
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(str(error))
    print(json.dumps(whole) if args.json else f"{whole['end']:7.1f} s in all: {whole['label']} {whole['score']:.1%}")


if __name__ == "__main__":
    main()
