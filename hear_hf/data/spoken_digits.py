"""Spoken digits zero to nine, synthesised by eSpeak NG: a labelled data set that needs no download.

Forty voices speak each digit several times, each time with another English accent, rate, pitch and level. The voices
of the test and validation splits are never heard in training.

Needs the package `espeakng-loader`, which ships eSpeak NG: `pip install "hear_hf[demo]"`.
"""

import ctypes
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Value
from tqdm.auto import tqdm

SAMPLING_RATE = 16000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

ACCENTS = "en en-029 en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd en-gb-x-rp en-us en-us-nyc".split()

# eSpeak's variants without its whispers, robots, caricatures and near copies of one another, and without those that
# breathe through the C library's `rand`, which cannot be seeded here.
FEMALE_VOICES = "Andrea Annie anika aunty f1 f2 f3 f4 f5 grandma linda steph".split()
MALE_VOICES = (
    "Alex Andy Gene Hugo Jacky Marco Michael antonio boris david ed edward grandpa iven "
    "klatt klatt3 m2 m3 m5 m7 m8 max paul pedro quincy robert sandro travis"
).split()
NUM_FEMALE_TEST, NUM_MALE_TEST = 2, 4
NUM_FEMALE_VALIDATION, NUM_MALE_VALIDATION = 1, 3

# From eSpeak's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
RATE, PITCH, PITCH_RANGE = 1, 3, 4
POSITION_CHARACTER = 1
CHARS_UTF8 = 1
SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Speaker:
    """eSpeak NG through ctypes, in a private copy of the library.

    eSpeak's state is global and some of it (flutter, noise) carries over from word to word and survives
    `espeak_Initialize`: only a fresh copy speaks the same bytes again.
    """

    def __init__(self, seed: int):
        try:
            import espeakng_loader
        except ImportError as error:
            raise ImportError(
                "The spoken digits need eSpeak NG, and the package `espeakng-loader` is not installed: "
                'pip install "hear_hf[demo]"'
            ) from error
        self.data_path = Path(espeakng_loader.get_data_path())
        # Windows does not delete a loaded library.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self.library = ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), folder))
        self.library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
            *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
        ]
        self.library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self.chunks: list[np.ndarray] = []
        self.callback = SynthCallback(self._receive)  # eSpeak keeps no reference to it
        self.sampling_rate = self.library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, str(self.data_path).encode(), 0
        )
        if self.sampling_rate <= 0:
            raise RuntimeError(f"eSpeak NG could not start with its data in {self.data_path}: reinstall it")
        self.library.espeak_SetSynthCallback(self.callback)
        self.library.espeak_ng_SetRandSeed(seed)

    def __enter__(self) -> "_Speaker":
        return self

    def __exit__(self, *exception):
        self.library.espeak_Terminate()

    def _receive(self, samples, num_samples: int, events) -> int:
        if samples and num_samples > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, shape=(num_samples,)).copy())
        return 0

    def say(self, text: str, accent: str, voice: str, rate: int, pitch: int, pitch_range: int) -> np.ndarray:
        """Speaks at `rate` words a minute; float32 in [-1, 1] at 16 kHz, of shape `(num_samples,)`."""
        # eSpeak itself ignores a variant that it does not know.
        if not (self.data_path / "voices" / "!v" / voice).is_file():
            raise RuntimeError(f"eSpeak NG must ship the variant {voice!r}, not found in {self.data_path}")
        if self.library.espeak_SetVoiceByName(f"{accent}+{voice}".encode()) != 0:
            raise RuntimeError(f"eSpeak NG must ship the accent {accent!r}, not found in {self.data_path}")
        for parameter, value in ((RATE, rate), (PITCH, pitch), (PITCH_RANGE, pitch_range)):
            self.library.espeak_SetParameter(parameter, value, 0)
        self.chunks.clear()
        encoded = text.encode()
        self.library.espeak_Synth(encoded, len(encoded) + 1, 0, POSITION_CHARACTER, 0, CHARS_UTF8, None, None)
        samples = np.concatenate(self.chunks).astype(np.float32) / 2**15
        return soxr.resample(samples, self.sampling_rate, SAMPLING_RATE)


def _split_voices(rng: np.random.Generator) -> dict[str, list[str]]:
    female, male = rng.permutation(FEMALE_VOICES).tolist(), rng.permutation(MALE_VOICES).tolist()
    num_female, num_male = NUM_FEMALE_TEST + NUM_FEMALE_VALIDATION, NUM_MALE_TEST + NUM_MALE_VALIDATION
    return {
        "train": female[num_female:] + male[num_male:],
        "validation": female[NUM_FEMALE_TEST:num_female] + male[NUM_MALE_TEST:num_male],
        "test": female[:NUM_FEMALE_TEST] + male[:NUM_MALE_TEST],
    }


def _speak_clip(speaker: _Speaker, label: int, voice: str, take: int, rng: np.random.Generator) -> dict:
    accent = str(rng.choice(ACCENTS))
    rate, pitch, pitch_range = (int(rng.integers(low, high)) for low, high in ((110, 220), (30, 71), (20, 81)))
    samples = speaker.say(DIGITS[label], accent, voice, rate, pitch, pitch_range)
    samples *= rng.uniform(0.2, 0.9) / np.abs(samples).max()
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLING_RATE, format="WAV", subtype="PCM_16")
    return {
        "audio": {"bytes": buffer.getvalue(), "path": f"{DIGITS[label]}_{voice}_{take}.wav"},
        "label": label,
        "voice": f"{accent}+{voice}",
    }


def spoken_digits(seed: int = 0, num_takes: int = 9) -> DatasetDict:
    """
    Synthesises English spoken digits; about ten seconds on one core at the default size.

    Args:
        seed (`int`, *optional*, defaults to 0):
            Decides which voices are in which split and how each clip is spoken. The same seed and number of takes give
            the same bytes.
        num_takes (`int`, *optional*, defaults to 9):
            Clips of each digit by each voice. A take is 300 clips in train (30 voices), 40 in validation (4 voices)
            and 60 in test (6 voices).

    Returns:
        `DatasetDict`: The splits `train`, `validation` and `test` with the columns `audio` (16 kHz mono 16-bit wav,
        undecoded: a dictionary of `bytes` and `path`), `label` (0 to 9, named "zero" to "nine") and `voice`
        ("accent+variant" as eSpeak names them).

    Raises:
        `ImportError`: `espeakng-loader` is not installed.
    """
    rng = np.random.default_rng(seed)
    voices = _split_voices(rng)
    num_clips = sum(map(len, voices.values())) * len(DIGITS) * num_takes
    splits = DatasetDict()
    with _Speaker(seed) as speaker, tqdm(total=num_clips, desc="Speaking digits", unit="clip") as progress:
        for split, split_voices in voices.items():
            clips = []
            for voice in split_voices:
                for label in range(len(DIGITS)):
                    clips += [_speak_clip(speaker, label, voice, take, rng) for take in range(num_takes)]
                    progress.update(num_takes)
            splits[split] = _to_dataset(clips)
    return splits


def _to_dataset(clips: list[dict]) -> Dataset:
    # Cast afterwards: given features at once, `from_list` encodes each clip, which imports torchcodec.
    features = {
        "audio": Audio(sampling_rate=SAMPLING_RATE, decode=False),
        "label": ClassLabel(names=list(DIGITS)),
        "voice": Value("string"),
    }
    return Dataset.from_list(clips).cast(Features(features))
