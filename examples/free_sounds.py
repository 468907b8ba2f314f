"""Makes tables of freely licensed sound to train on, so that a model trained on them may be shipped.

    python examples/free_sounds.py words --output_file words.parquet --hours 10 --num_proc 16

words   speech synthesized by eSpeak NG and, where it is installed, Flite

`--help` after a name lists its options. The guide is docs/free-sounds.md.
"""

import sys

from hear_hf.arguments import command_parser, parse_arguments
from hear_hf.data.spoken_words import SpokenWordsArguments, speak_words

TABLES = {"words": (SpokenWordsArguments, speak_words)}


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in TABLES:
        parser = command_parser((), __doc__)
        parser.add_argument("table", choices=TABLES, help="The table to make.")
        parser.parse_args(argv)
        return
    arguments, make = TABLES[argv[0]]
    make(*parse_arguments(arguments, argv[1:], __doc__))


if __name__ == "__main__":
    main()
