"""Tables of spoken words: what they hold, that they repeat, and what happens without a synthesizer that speaks."""

import io
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import free_sounds
from hear_hf.data import spoken_words
from hear_hf.data.spoken_words import SpokenWordsArguments, draw_text, reverberate, speak_words
from hear_hf.data.synthetic_clips import trim
from hear_hf.data.vocabulary import COMMANDS, COMMON_WORDS, DIGITS, WORDS_BY_LANGUAGE
from helpers import write_tone

# German is silent. As eSpeak NG does, it states a length that is not that of what follows.
FAKE_ESPEAK = """#!/bin/sh
case "$*" in
  --version) echo "eSpeak NG text-to-speech: 9.9  Data at: /nowhere" ;;
  --voices) printf 'Pty Language Gender Name File\\n5 en-us M English en\\n5 de M German de\\n' ;;
  --voices=variant) printf 'Pty Language Gender Name File\\n5 variant F Eve !v/f1\\n5 variant M R !v/robosoft\\n' ;;
  *de+f1*) ;;
  *) cat "${0%/*}/tone.wav" ;;
esac
"""


def program(folder, text=FAKE_ESPEAK):
    path = folder / "espeak-ng"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def args(tmp_path):
    """Some seconds of speech by a program that beeps; another that is absent takes Flite's place."""
    (tmp_path / "bin").mkdir()
    write_tone(tmp_path / "bin" / "tone.wav", 440, 0.8)
    espeak = program(tmp_path / "bin")
    return SpokenWordsArguments(
        str(tmp_path / "words.parquet"), hours=0.002, audio_format="flac", espeak_ng=espeak, flite="no-flite"
    )


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Half a minute by eSpeak NG itself."""
    args = SpokenWordsArguments(str(tmp_path_factory.mktemp("spoken") / "words.parquet"), hours=0.01, flite="no-flite")
    try:
        speak_words(args)
    except ValueError as error:
        pytest.skip(str(error))
    return pq.read_table(args.output_file).to_pylist()


def read(args):
    return pq.read_table(args.output_file).to_pylist()


def decode(row):
    return soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")


def test_clips_of_espeak_are_mono_opus_at_16_khz_short_loud_enough_and_not_clipped(spoken):
    for row in spoken:
        info = soundfile.info(io.BytesIO(row["audio"]["bytes"]))
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16_000, 1, "OGG", "OPUS")
        samples, _ = decode(row)
        assert 0.1 < len(samples) / 16_000 < 10
        assert 0.03 < np.abs(samples).max() <= 1.0


def test_espeak_speaks_several_languages_most_often_english(spoken):
    languages = [row["language"] for row in spoken]
    assert len(set(languages)) > 5
    assert 0.3 < sum(language.startswith("en") for language in languages) / len(languages) < 0.9
    assert all(row["text"] and row["source"].startswith("eSpeak NG") and row["licence"] for row in spoken)


def test_espeak_says_the_same_again_under_the_same_seed(spoken):
    clip = spoken_words.Speech(SpokenWordsArguments(flite="no-flite")).clip(3)
    again, _ = soundfile.read(io.BytesIO(clip.encoded), dtype="float32")
    assert clip.texts["text"] == spoken[3]["text"] and np.array_equal(again, decode(spoken[3])[0])


def test_the_table_holds_at_least_the_hours_asked_for(args):
    assert speak_words(args) == len(read(args))
    seconds = sum(len(decode(row)[0]) / 16_000 for row in read(args))
    assert 7.2 <= seconds < 7.2 + 10


def test_the_same_seed_gives_the_same_clips_in_any_number_of_processes(args, tmp_path):
    speak_words(args)
    speak_words(replace(args, num_proc=2, output_file=str(tmp_path / "again.parquet")))
    speak_words(replace(args, seed=1, output_file=str(tmp_path / "other.parquet")))
    again, other = (pq.read_table(tmp_path / name) for name in ("again.parquet", "other.parquet"))
    assert again.equals(pq.read_table(args.output_file)) and not other.equals(again)


def test_a_voice_that_says_nothing_is_replaced(args):
    speak_words(replace(args, english_share=0.5))
    assert {row["language"] for row in read(args)} == {"en-us"}


def test_voices_of_machines_are_left_out(args):
    assert spoken_words.ESpeakNG(args.espeak_ng).variants == ["f1"]


def test_flite_speaks_its_share_of_english_where_it_is_installed(args, monkeypatch):
    class Beep:
        name = "Flite"

        def __init__(self, path):
            pass

        def say(self, text, language, rng):
            return np.tile(np.float32([0.5, -0.5]), 4000), 16_000

    monkeypatch.setattr(spoken_words, "Flite", Beep)
    speak_words(replace(args, flite=args.espeak_ng, flite_share=1.0, english_share=1.0))
    assert {row["source"] for row in read(args)} == {"Flite"}


@pytest.mark.parametrize("reply", ["exit 1", "head -c 20000 /dev/zero"])
def test_a_synthesizer_that_fails_or_is_silent_is_an_error_and_leaves_no_table(args, tmp_path, reply):
    program(tmp_path / "bin", FAKE_ESPEAK.replace('cat "${0%/*}/tone.wav"', reply))
    with pytest.raises(RuntimeError, match="found silence from 20 voices in a row"):
        speak_words(args)
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_an_espeak_without_voices_is_an_error(args, tmp_path):
    program(tmp_path / "bin", "#!/bin/sh\n")
    with pytest.raises(ValueError, match="must have voices and variants, found none"):
        speak_words(args)


def test_without_espeak_the_command_says_how_to_install_it(tmp_path):
    with pytest.raises(ValueError, match=r"found no program 'no-espeak'.*apt install espeak-ng"):
        free_sounds.main(["words", "--espeak_ng", "no-espeak", "--output_file", str(tmp_path / "words.parquet")])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"hours": 0.0}, "`hours` must be above 0"),
        ({"english_share": 1.1}, "`english_share` must lie between 0 and 1, found: 1.1"),
        ({"num_proc": 0}, "`num_proc` must be at least 1"),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        SpokenWordsArguments(**settings)


def test_texts_are_one_to_three_words_of_the_language_or_numbers():
    rng = np.random.default_rng(0)
    known = {"en": {*DIGITS, *COMMANDS, *COMMON_WORDS}, "de": {*WORDS_BY_LANGUAGE["de"]}, "qya": set()}
    for language, words in known.items():
        texts = [draw_text(f"{language}-x", rng).split() for _ in range(300)]
        assert {len(text) for text in texts} == {1, 2, 3}
        said = {word for text in texts for word in text}
        numbers = {word for word in said if word.isdigit() and int(word) <= 1000}
        assert said - numbers <= words and bool(numbers) == (language != "en") and bool(said - numbers) == bool(words)


def test_silence_around_a_word_is_cut_off_and_silence_alone_is_nothing():
    word = np.float32([0.5, 0.0, -0.5])
    assert (
        trim(np.concatenate([np.zeros(100, np.float32), word, np.full(50, 1e-4, np.float32)])).tolist()
        == word.tolist()
    )
    assert len(trim(np.zeros(100, np.float32))) == len(trim(np.zeros(0, np.float32))) == 0


def test_a_room_adds_a_decaying_echo_behind_the_sound():
    click = np.zeros(100, np.float32)
    click[0] = 1
    heard = reverberate(click, np.random.default_rng(0))
    echo = heard[1:]
    assert heard[0] == pytest.approx(1, abs=1e-5) and 0.03 < np.linalg.norm(echo) <= 1
    halves = np.array_split(echo, 2)
    assert np.linalg.norm(halves[0]) > 10 * np.linalg.norm(halves[1])
