"""Notes, chords, phrases and drums of 128 instruments, played by FluidSynth.

A clip depends on the seed, its number, the sound font and FluidSynth's version, not on how many processes make it.
"""

import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ..arguments import option
from .synthetic_clips import (
    MIN_PEAK,
    SAMPLING_RATE,
    SyntheticClip,
    SyntheticClipsArguments,
    synthetic_clip,
    trim,
    write_synthetic_clips,
)

TIMEOUT_SECONDS = 60.0  # for a clip of a few seconds
MAX_TRIES = 20  # of other notes: some instruments are silent far outside their range
TICKS_PER_SECOND = 1000
DRUMS = 9  # the channel of percussion in General MIDI, whose channels count from 0
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


@dataclass(frozen=True)
class Note:
    """A key that is pressed and let go, on a channel; times in seconds."""

    start: float
    end: float
    key: int
    velocity: int
    channel: int = 0


class FluidSynth:
    """
    [FluidSynth](https://www.fluidsynth.org), which plays MIDI by the recorded instruments of a sound font.

    Args:
        program (`str`): The program or its path.
        sound_font (`str`): A `.sf2` file.

    Raises:
        `ValueError`: There is no such program or file.
    """

    def __init__(self, program: str, sound_font: str):
        path = shutil.which(program)
        if path is None:
            raise ValueError(
                f"FluidSynth must be installed, found no program {program!r}. On Debian and Ubuntu: "
                "`apt install fluidsynth fluid-soundfont-gm`; on macOS: `brew install fluid-synth`; or name it with "
                "--fluidsynth."
            )
        if not Path(sound_font).is_file():
            raise ValueError(
                f"`sound_font` must be a .sf2 file, found none at {sound_font}. On Debian and Ubuntu: "
                "`apt install fluid-soundfont-gm`."
            )
        self.program, self.sound_font = path, sound_font

    def play(self, notes: list[Note], instruments: dict[int, int], seconds: float) -> np.ndarray:
        """
        Plays notes.

        Args:
            notes (`list[Note]`): In any order.
            instruments (`dict[int, int]`): The number in General MIDI, from 0, of each channel's instrument.
            seconds (`float`): How long to go on playing, at least.

        Returns:
            `np.ndarray` of shape `(num_samples,)`: Mono, at 16 kHz.
        """
        with tempfile.TemporaryDirectory() as folder:
            score, played = Path(folder, "score.mid"), Path(folder, "played.wav")
            score.write_bytes(midi_file(notes, instruments, seconds))
            options = ["-n", "-i", "-q", "-g", "1", "-r", str(SAMPLING_RATE), "-T", "wav", "-F", str(played)]
            subprocess.run(
                [self.program, *options, "-o", "synth.dynamic-sample-loading=1", self.sound_font, str(score)],
                capture_output=True,
                check=True,
                timeout=TIMEOUT_SECONDS,
            )
            samples, _ = soundfile.read(played, dtype="float32", always_2d=True)
            return samples.mean(1)


def midi_file(notes: list[Note], instruments: dict[int, int], seconds: float) -> bytes:
    """A standard MIDI file of one track that ends after so many seconds, or with the last note if that is later."""
    events = [(0.0, bytes([0xC0 | channel, number])) for channel, number in instruments.items()]
    for note in notes:
        events.append((note.start, bytes([0x90 | note.channel, note.key, note.velocity])))
        events.append((note.end, bytes([0x80 | note.channel, note.key, 0])))
    events.sort(key=lambda event: event[0])
    events.append((max(seconds, events[-1][0]), b"\xff\x2f\x00"))
    track, last = b"", 0
    for time, message in events:
        tick = round(time * TICKS_PER_SECOND)
        track += _variable_length(tick - last) + message
        last = tick
    # Two quarters a second, which is the tempo where none is given.
    header = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS_PER_SECOND // 2)
    return header + struct.pack(">4sI", b"MTrk", len(track)) + track


def _variable_length(number: int) -> bytes:
    digits = [number & 127]
    while number := number >> 7:
        digits.append(number & 127 | 128)
    return bytes(reversed(digits))


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
