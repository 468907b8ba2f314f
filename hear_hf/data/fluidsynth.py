"""FluidSynth, installed as a program: plays notes on the instruments of a sound font."""

import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from .synthetic_clips import SAMPLING_RATE

TIMEOUT_SECONDS = 60.0  # for a clip of a few seconds
TICKS_PER_SECOND = 1000
DRUMS = 9  # the channel of percussion in General MIDI, whose channels count from 0


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
