"""Tables of played notes: what they hold, that they repeat, and what happens without FluidSynth or its sound font."""

import io
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import free_sounds
from hear_hf.data.fluidsynth import DRUMS, Note, midi_file
from hear_hf.data.played_notes import KINDS, Musician, PlayedNotesArguments, draw_music, play_notes
from helpers import write_tone

# Plays a tone whatever the score says, and writes it where it is told to.
FAKE_FLUIDSYNTH = """#!/bin/sh
while [ "$1" != -F ]; do shift; done
cat "${0%/*}/tone.wav" > "$2"
"""


@pytest.fixture
def args(tmp_path):
    """Some seconds of notes by a program that beeps, in a format that keeps every sample."""
    folder = tmp_path / "bin"
    folder.mkdir()
    write_tone(folder / "tone.wav", 440, 0.8)
    (folder / "fluidsynth").write_text(FAKE_FLUIDSYNTH)
    (folder / "fluidsynth").chmod(0o755)
    (folder / "font.sf2").touch()
    return PlayedNotesArguments(
        str(tmp_path / "notes.parquet"),
        hours=0.002,
        audio_format="flac",
        fluidsynth=str(folder / "fluidsynth"),
        sound_font=str(folder / "font.sf2"),
    )


def test_fluidsynth_plays_what_the_score_says(tmp_path):
    args = PlayedNotesArguments(str(tmp_path / "notes.parquet"), hours=0.003)
    try:
        musician = Musician(args)
    except ValueError as error:
        pytest.skip(str(error))
    flute = musician.synth.play([Note(0.5, 1.5, 69, 100)], {0: 73}, 2.0)
    assert np.abs(flute[:7_000]).max() < 1e-3 < 0.01 < np.abs(flute[12_000:20_000]).max()
    spectrum = np.abs(np.fft.rfft(flute[12_000:20_000], 16_000))
    assert spectrum.argmax() in range(435, 446)  # Hz: the A above middle C
    assert play_notes(args) > 3
    for row in pq.read_table(args.output_file).to_pylist():
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        assert rate == 16_000 and samples.ndim == 1 and 0.03 < np.abs(samples).max() <= 1
        assert row["kind"] in KINDS and row["source"] == "FluidSynth" and "MIT" in row["licence"]


def test_the_same_seed_gives_the_same_table(args):
    play_notes(args)
    first = pq.read_table(args.output_file)
    args.num_proc = 2
    play_notes(args)
    assert pq.read_table(args.output_file).equals(first)
    args.seed = 1
    play_notes(args)
    assert not pq.read_table(args.output_file).equals(first)


def test_music_holds_all_kinds_within_the_keys_of_midi():
    rng = np.random.default_rng(0)
    for kind in KINDS:
        for _ in range(200):
            notes, instruments = draw_music(kind, rng)
            assert notes and all(0 <= note.key <= 127 and 0 < note.velocity <= 127 for note in notes)
            assert all(0 <= note.start < note.end < 30 for note in notes)
            assert {note.channel for note in notes} <= {*instruments, DRUMS}
            assert (kind == "drums") == (not instruments)


def test_a_score_is_a_standard_midi_file_in_milliseconds():
    score = midi_file([Note(0.0, 0.2, 60, 90)], {0: 40}, seconds=1.0)
    assert struct.unpack(">4sIHHH", score[:14]) == (b"MThd", 6, 0, 1, 500)  # ticks of a quarter, of which 2 a second
    track = bytes([0, 0xC0, 40, 0, 0x90, 60, 90, 0x81, 0x48, 0x80, 60, 0, 0x86, 0x20, 0xFF, 0x2F, 0])  # 200, 800
    assert score[14:] == struct.pack(">4sI", b"MTrk", len(track)) + track


def test_silence_is_an_error_and_leaves_no_table(args, tmp_path):
    soundfile.write(tmp_path / "bin" / "tone.wav", np.zeros(8_000), 16_000)
    with pytest.raises(RuntimeError, match="found silence 20 times in a row"):
        play_notes(args)
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@pytest.mark.parametrize(
    "option, message", [("fluidsynth", "found no program 'missing'"), ("sound_font", "found none at missing")]
)
def test_what_is_missing_is_named_with_the_command_that_installs_it(args, option, message):
    setattr(args, option, "missing")
    with pytest.raises(ValueError, match=f"{message}.*apt install"):
        free_sounds.main(
            ["notes", "--fluidsynth", args.fluidsynth, "--sound_font", args.sound_font, "--output_file", "n.parquet"]
        )
