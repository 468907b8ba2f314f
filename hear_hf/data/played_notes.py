"""Notes, chords, phrases and drums of 128 instruments, played by FluidSynth.

A clip depends on the seed, its number, the sound font and FluidSynth's version, not on how many processes make it.
"""

from dataclasses import dataclass

import numpy as np

from ..arguments import option
from .fluidsynth import DRUMS, FluidSynth, Note
from .synthetic_clips import (
    MIN_PEAK,
    SyntheticClip,
    SyntheticClipsArguments,
    synthetic_clip,
    trim,
    write_synthetic_clips,
)

MAX_TRIES = 20  # of other notes: some instruments are silent far outside their range
DRUM_KEYS = (27, 88)  # from its lowest instrument to behind its highest
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 3, 5, 7, 10))  # major, minor, pentatonic
CHORDS = ((0, 7), (0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 3, 6, 9))
KINDS = {"note": 0.5, "chord": 0.15, "phrase": 0.2, "drums": 0.15}  # shares of the clips


@dataclass
class PlayedNotesArguments(SyntheticClipsArguments):
    """How much to have played, on what, and where to write it."""

    output_file: str = option(default="notes.parquet", help="Write the clips into this parquet file.")
    fluidsynth: str = option(default="fluidsynth", help="Call this program of FluidSynth, by name or path.")
    sound_font: str = option(
        default="/usr/share/sounds/sf2/FluidR3_GM.sf2",
        help="Play the instruments of this sound font, which must hold those of General MIDI.",
    )
    sound_font_licence: str = option(
        default="MIT (FluidR3 GM, Frank Wen)", help="Write this into the column `licence`."
    )


class Musician:
    """
    Draws clips by their numbers.

    Args:
        args (`PlayedNotesArguments`): The program, the sound font and the seed.

    Raises:
        `ValueError`: FluidSynth or the sound font is not installed.
    """

    def __init__(self, args: PlayedNotesArguments):
        self.args = args
        self.synth = FluidSynth(args.fluidsynth, args.sound_font)

    def clip(self, number: int) -> SyntheticClip:
        """
        The clip of a number, always the same.

        Raises:
            `RuntimeError`: Nothing that was tried sounded.
        """
        rng = np.random.default_rng((self.args.seed, number))
        for _ in range(MAX_TRIES):
            kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
            notes, instruments = draw_music(kind, rng)
            samples = trim(self.synth.play(notes, instruments, max(note.end for note in notes) + rng.uniform(0.1, 2)))
            if np.abs(samples).max(initial=0) > MIN_PEAK:
                texts = {
                    "source": "FluidSynth",
                    "licence": self.args.sound_font_licence,
                    "kind": kind,
                    "instruments": " ".join(str(instrument) for instrument in instruments.values()),
                }
                return synthetic_clip(samples, rng, self.args.audio_format, texts)
        raise RuntimeError(
            f"FluidSynth must play, found silence {MAX_TRIES} times in a row. Is {self.args.sound_font} a sound font "
            "of General MIDI?"
        )


def draw_music(kind: str, rng: np.random.Generator) -> tuple[list[Note], dict[int, int]]:
    """Notes, and the instrument of each channel: a note, a chord, a phrase with or without company, or drums."""
    if kind == "drums":
        return _drums(rng, length=float(rng.choice([0.1, rng.uniform(0.5, 4)]))), {}
    instruments = {0: int(rng.integers(128))}
    root = int(np.clip(rng.normal(60, 13), 24, 96))
    if kind == "phrase":
        notes, length = _phrase(rng, root)
        if rng.random() < 0.5:
            instruments[1] = int(rng.integers(128))
            notes += [Note(0, length, root - 12 + step, int(rng.integers(40, 90)), 1) for step in _chord(rng)]
        if rng.random() < 0.3:
            notes += _drums(rng, length)
        return notes, instruments
    length = float(np.exp(rng.uniform(*np.log([0.08, 4]))))
    velocity = int(rng.integers(30, 128))
    steps = _chord(rng) if kind == "chord" else (0,)
    return [Note(0, length, root + step, velocity) for step in steps], instruments


def _chord(rng: np.random.Generator) -> tuple[int, ...]:
    return CHORDS[rng.integers(len(CHORDS))]


def _phrase(rng: np.random.Generator, root: int) -> tuple[list[Note], float]:
    """Notes of one scale, each near the one before, and where they end."""
    scale, step = SCALES[rng.integers(len(SCALES))], 0
    beat, time, notes = rng.uniform(0.12, 0.6), 0.0, []
    for _ in range(rng.integers(3, 13)):
        length = float(beat * rng.choice([1, 1, 2, 3]))
        octave, degree = divmod(step, len(scale))
        key = int(np.clip(root + 12 * octave + scale[degree], 0, 127))
        notes.append(Note(time, time + length * rng.uniform(0.5, 1), key, int(rng.integers(50, 128))))
        time, step = time + length, step + int(rng.integers(-3, 4))
    return notes, time


def _drums(rng: np.random.Generator, length: float) -> list[Note]:
    """Up to four instruments of percussion, each hit at a steady pace for a while."""
    notes = []
    for key in rng.integers(*DRUM_KEYS, rng.integers(1, 5) if length > 0.2 else 1):
        pace = rng.uniform(0.15, 0.8)
        for time in np.arange(0 if length <= 0.2 else rng.uniform(0, pace), length, pace):
            notes.append(Note(float(time), float(time) + 0.1, int(key), int(rng.integers(40, 128)), DRUMS))
    return notes or [Note(0, 0.1, int(rng.integers(*DRUM_KEYS)), 100, DRUMS)]


def play_notes(args: PlayedNotesArguments) -> int:
    """
    Writes a table of played notes with the columns `audio`, `source`, `licence`, `kind` and `instruments`.

    Args:
        args (`PlayedNotesArguments`): How much, on what, and where to.

    Returns:
        `int`: The number of clips.

    Raises:
        `ValueError`: FluidSynth or the sound font is not installed.
    """
    columns = ("source", "licence", "kind", "instruments")
    return write_synthetic_clips(args, Musician(args).clip, columns, "Playing")
