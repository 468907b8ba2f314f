"""Words and numbers spoken by synthesizers in many voices and languages, dry or in a room.

A clip depends on the seed, its number, and the synthesizers installed, not on how many processes make it.
"""

import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import soxr

from ..arguments import option
from .synthesizers import ESpeakNG, Flite
from .synthetic_clips import (
    SAMPLING_RATE,
    SyntheticClip,
    SyntheticClipsArguments,
    synthetic_clip,
    trim,
    write_synthetic_clips,
)
from .vocabulary import COMMANDS, COMMON_WORDS, DIGITS, WORDS_BY_LANGUAGE

MAX_TRIES = 20  # of other voices and words: a few voices of eSpeak NG cannot speak some or all of them
MIN_SECONDS = 0.1
LICENCES = {
    "eSpeak NG": "no rights claimed; made with a GPL-3.0-or-later program",
    "Flite": "no rights claimed; made with a BSD-like program",
}


@dataclass
class SpokenWordsArguments(SyntheticClipsArguments):
    """How much to have spoken, by which programs, and where to write it."""

    output_file: str = option(default="words.parquet", help="Write the clips into this parquet file.")
    english_share: float = option(default=0.6, help="Make this share of the clips English.")
    flite_share: float = option(
        default=0.2, help="Have this share of the English clips spoken by Flite, where it is installed."
    )
    reverberant_share: float = option(default=0.3, help="Put this share of the clips into a synthetic room.")
    espeak_ng: str = option(default="espeak-ng", help="Call this program of eSpeak NG, by name or path.")
    flite: str = option(default="flite", help="Call this program of Flite, by name or path.")

    def __post_init__(self):
        super().__post_init__()
        for name in ("english_share", "flite_share", "reverberant_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, found: {getattr(self, name)}")


class Speech:
    """
    Draws clips by their numbers.

    Args:
        args (`SpokenWordsArguments`): The programs, the shares and the seed.

    Raises:
        `ValueError`: eSpeak NG is not installed.
    """

    def __init__(self, args: SpokenWordsArguments):
        self.args = args
        self.espeak = ESpeakNG(args.espeak_ng)
        self.english = [language for language in self.espeak.languages if language.startswith("en")]
        self.other_languages = [language for language in self.espeak.languages if not language.startswith("en")]
        self.flite = Flite(args.flite) if shutil.which(args.flite) else None

    def clip(self, number: int) -> SyntheticClip:
        """
        The clip of a number, always the same.

        Raises:
            `RuntimeError`: No voice that was tried spoke.
        """
        rng = np.random.default_rng((self.args.seed, number))
        samples, rate, said = self._say_something(rng)
        # Played faster or slower by up to an eighth, which makes the speaker smaller or larger.
        samples = soxr.resample(samples, rate * rng.uniform(0.89, 1.12), SAMPLING_RATE)
        if rng.random() < self.args.reverberant_share:
            samples = reverberate(samples, rng)
        return synthetic_clip(samples, rng, self.args.audio_format, said)

    def _say_something(self, rng: np.random.Generator) -> tuple[np.ndarray, int, dict[str, str]]:
        """Samples, their rate, and what the table says of them."""
        for _ in range(MAX_TRIES):
            language, synthesizer = self._draw_voice(rng)
            text = draw_text(language, rng)
            try:
                samples, rate = synthesizer.say(text, language, rng)
            except subprocess.SubprocessError:
                continue
            samples = trim(samples)
            if len(samples) > MIN_SECONDS * rate:
                licence = next(text for name, text in LICENCES.items() if synthesizer.name.startswith(name))
                said = {"source": synthesizer.name, "licence": licence, "text": text, "language": language}
                return samples, rate, said
        raise RuntimeError(
            f"eSpeak NG must speak, found silence from {MAX_TRIES} voices in a row. Try `espeak-ng -v en hello`."
        )

    def _draw_voice(self, rng: np.random.Generator) -> tuple[str, ESpeakNG | Flite]:
        if rng.random() >= self.args.english_share:
            return str(rng.choice(self.other_languages)), self.espeak
        if self.flite is not None and rng.random() < self.args.flite_share:
            return "en-us", self.flite
        return str(rng.choice(self.english)), self.espeak


def draw_text(language: str, rng: np.random.Generator) -> str:
    """One word, sometimes two or three: those of the language, where we know some, and numbers."""
    num_words = rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])
    return " ".join(_draw_word(language.split("-")[0], rng) for _ in range(num_words))


def _draw_word(language: str, rng: np.random.Generator) -> str:
    if language == "en":
        words = (DIGITS, COMMANDS, COMMON_WORDS)[rng.choice(3, p=[0.15, 0.3, 0.55])]
    else:
        words = WORDS_BY_LANGUAGE.get(language, [])
    if words and (language == "en" or rng.random() < 0.5):
        return str(rng.choice(words))
    return str(rng.integers(0, rng.choice([11, 101, 1001])))  # read out in every language


def reverberate(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds the echo of a room: noise that decays by 60 dB within 0.1 to 0.8 s, 0 to 15 dB softer than the voice."""
    decay_seconds, echo_level = rng.uniform(0.1, 0.8), 10 ** (-rng.uniform(0, 15) / 20)
    time = np.arange(int(decay_seconds * SAMPLING_RATE)) / SAMPLING_RATE
    echo = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay_seconds)
    echo *= echo_level / np.linalg.norm(echo)
    first = int(rng.uniform(0.001, 0.02) * SAMPLING_RATE)  # the way to the nearest wall and back
    response = np.concatenate([[1], np.zeros(first - 1), echo])
    length = len(samples) + len(response) - 1
    size = 1 << length.bit_length()  # a power of two is fast
    heard = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return heard[:length].astype(np.float32)


def speak_words(args: SpokenWordsArguments) -> int:
    """
    Writes a table of spoken words with the columns `audio`, `source`, `licence`, `text` and `language`.

    Args:
        args (`SpokenWordsArguments`): How much, how, and where to.

    Returns:
        `int`: The number of clips.

    Raises:
        `ValueError`: eSpeak NG is not installed.
    """
    return write_synthetic_clips(args, Speech(args).clip, ("source", "licence", "text", "language"), "Speaking")
