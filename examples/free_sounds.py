r"""Makes tables of freely licensed sound, so that a model trained on them may be shared.

    python examples/free_sounds.py words --hours 10 --output_file sounds/words.parquet --num_proc 8
    python examples/free_sounds.py notes --hours 4 --output_file sounds/notes.parquet --num_proc 8
    python examples/free_sounds.py repositories --output_dir sounds/repositories
    python examples/free_sounds.py debian --output_dir sounds/debian

words         speech synthesized by eSpeak NG and, where it is installed, Flite
notes         notes, chords, phrases and drums of 128 instruments, played by FluidSynth
repositories  recordings and game effects of public git repositories, those alone whose licences allow it
debian        sounds, music and prompts of packages of Debian, by its apt-get

`--help` after one of these lists its options; docs/free-sounds.md says what each holds.
"""

import sys

from hear_hf.arguments import command_parser, parse_arguments
from hear_hf.data.debian_sounds import DebianArguments, collect_debian_sounds
from hear_hf.data.played_notes import PlayedNotesArguments, play_notes
from hear_hf.data.repository_sounds import RepositoryArguments, collect_repository_sounds
from hear_hf.data.spoken_words import SpokenWordsArguments, speak_words

KINDS = {
    "words": (SpokenWordsArguments, speak_words),
    "notes": (PlayedNotesArguments, play_notes),
    "repositories": (RepositoryArguments, collect_repository_sounds),
    "debian": (DebianArguments, collect_debian_sounds),
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in KINDS:
        parser = command_parser((), __doc__)
        parser.add_argument("kind", choices=KINDS, help="What to make tables of.")
        parser.parse_args(argv)
    arguments, make = KINDS[argv[0]]
    return make(*parse_arguments(arguments, argv[1:], __doc__))


if __name__ == "__main__":
    main()
