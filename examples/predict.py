"""Names the sounds in audio files, with any audio classifier and `pipeline("audio-classification")`.

    python examples/predict.py runs/digits one.wav two.flac

Without files it classifies three spoken digits, in voices that the demo's training never heard.
"""

import sys
from dataclasses import dataclass

from transformers import pipeline

from hear_hf.arguments import command_parser, option
from hear_hf.data.decoding import decode_audio
from hear_hf.data.spoken_digits import spoken_digits


@dataclass
class PredictionArguments:
    """How much to show, and whose code to run."""

    top_k: int = option(default=3, help="Show this many labels for each file.")
    trust_remote_code: bool = option(default=False, help="Run the code that a repository comes with.")


def demo_clips(count: int = 3) -> list[tuple[str, dict]]:
    """Test clips of different digits in different voices, each with a description of what is said."""
    clips = spoken_digits()["test"].shuffle(seed=0)
    names = clips.features["label"]
    chosen: dict[int, dict] = {}
    for clip in clips:
        if clip["label"] not in chosen and clip["voice"] not in {other["voice"] for other in chosen.values()}:
            chosen[clip["label"]] = clip
        if len(chosen) == count:
            break
    return [(f'"{names.int2str(clip["label"])}" by {clip["voice"]}', clip["audio"]) for clip in chosen.values()]


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(PredictionArguments, __doc__)
    parser.add_argument("model", help="A folder, or a repository of the Hub.")
    parser.add_argument("files", nargs="*", help="Audio files; by default three spoken digits.")
    args, named = parser.parse_args_into_dataclasses(argv)

    classifier = pipeline("audio-classification", model=named.model, trust_remote_code=args.trust_remote_code)
    sampling_rate, num_refused = classifier.feature_extractor.sampling_rate, 0
    for name, audio in [(file, file) for file in named.files] or demo_clips():
        try:
            clip = {"array": decode_audio(audio, sampling_rate), "sampling_rate": sampling_rate}
            results = classifier(clip, top_k=args.top_k)
        except (OSError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            num_refused += 1
            continue
        print(f"{name}: " + ", ".join(f"{result['label']} {result['score']:.1%}" for result in results))
    if num_refused:
        sys.exit(f"{num_refused} of {len(named.files)} files could not be classified.")


if __name__ == "__main__":
    main()
