"""Soundscapes made on the spot: labelled clips at random times and levels over noise, with the events they hold."""

import io
from dataclasses import dataclass

import numpy as np
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict
from tqdm.auto import tqdm

from ..arguments import option
from .annotations import events_feature
from .decoding import decode_audio

SAMPLING_RATE = 16_000
QUIET_DB = -30  # below a clip's loudest 10 ms, and so no part of its event where it is at an end
NUM_TRIES = 20  # to find a place for an event
PEAK = 0.9


@dataclass
class SoundscapeArguments:
    """How to make soundscapes of labelled clips."""

    soundscape_seconds: float = option(default=5.0, help="Length of each soundscape.")
    num_train_soundscapes: int = option(default=1500, help="Soundscapes to train on.")
    num_eval_soundscapes: int = option(default=200, help="Soundscapes to validate on, and as many to test on.")
    max_events: int = option(default=5, help="Put up to this many events into each soundscape.")
    max_event_seconds: float = option(default=3.0, help="Cut longer clips to this length.")
    min_snr_db: float = option(default=0.0, help="The quietest events are this much louder than the noise.")
    max_snr_db: float = option(default=20.0, help="The loudest ones are this much louder.")
    overlapping_events: bool = option(default=False, help="Let events of different labels overlap.")

    def __post_init__(self):
        if not 0 < self.soundscape_seconds <= 600:
            raise ValueError(
                f"`soundscape_seconds` must lie between 0 and 600, found: {self.soundscape_seconds}. Give seconds."
            )
        if self.min_snr_db > self.max_snr_db:
            raise ValueError(
                f"`min_snr_db` must not be above `max_snr_db`, found: {self.min_snr_db} and {self.max_snr_db}"
            )
        for name in ("num_train_soundscapes", "num_eval_soundscapes", "max_events"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, found: {getattr(self, name)}")


def make_soundscapes(clips: DatasetDict, args: SoundscapeArguments, seed: int = 0) -> DatasetDict:
    """
    Makes soundscapes of the clips of each split.

    An event's level is its power over that of the noise, both while it lasts; its ends are where its clip is 30 dB
    quieter than at its loudest. The noise is random, its spectrum between white and brown.

    Args:
        clips (`DatasetDict`): Splits of `load_labelled_audio` with one label a clip.
        args (`SoundscapeArguments`): How many, how long and how loud.
        seed (`int`, *optional*, defaults to 0): The same seed and clips give the same soundscapes.

    Returns:
        `DatasetDict`: The same splits with the columns `audio` (16 kHz, 16-bit wav, undecoded) and `events`.

    Raises:
        `ValueError`: The clips have several labels each.
    """
    feature = clips["train"].features["label"]
    if not isinstance(feature, ClassLabel):
        raise ValueError(
            "Soundscapes must be made of clips with one label each, found several: leave out --soundscapes."
        )
    made = DatasetDict()
    for number, (split, dataset) in enumerate(clips.items()):
        rng = np.random.default_rng([seed, number])
        sounds = [trimmed(decode_audio(row["audio"], SAMPLING_RATE)) for row in dataset.select_columns("audio")]
        labels = np.asarray(dataset["label"][:])
        num_soundscapes = args.num_train_soundscapes if split == "train" else args.num_eval_soundscapes
        rows = []
        for index in tqdm(range(num_soundscapes), desc=f"Making {split} soundscapes", leave=False):
            samples, events = soundscape(sounds, labels, args, rng)
            buffer = io.BytesIO()
            soundfile.write(buffer, samples, SAMPLING_RATE, format="WAV", subtype="PCM_16")
            audio = {"bytes": buffer.getvalue(), "path": f"{split}_{index}.wav"}
            rows.append({"audio": audio, "events": events})
        # Cast afterwards: given features at once, `from_list` encodes each clip, which imports torchcodec.
        made[split] = Dataset.from_list(rows).cast_column("events", events_feature(feature.names))
        made[split] = made[split].cast_column("audio", Audio(sampling_rate=SAMPLING_RATE, decode=False))
    return made


def trimmed(samples: np.ndarray) -> np.ndarray:
    """A clip without its quiet ends."""
    step = SAMPLING_RATE // 100
    blocks = np.pad(samples, (0, -len(samples) % step)).reshape(-1, step)
    power = np.square(blocks).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (QUIET_DB / 10))
    return samples[loud[0] * step : (loud[-1] + 1) * step] if len(loud) else samples


def soundscape(
    sounds: list[np.ndarray], labels: np.ndarray, args: SoundscapeArguments, rng: np.random.Generator
) -> tuple[np.ndarray, list[dict]]:
    """Makes one: samples in [-1, 1], and its events in the order of their starts."""
    length = round(args.soundscape_seconds * SAMPLING_RATE)
    samples = noise(length, rng)
    events: list[dict] = []
    for _ in range(rng.integers(args.max_events + 1)):
        label = int(rng.choice(np.unique(labels)))
        sound = cut(sounds[int(rng.choice(np.flatnonzero(labels == label)))], length, args, rng)
        start = place(len(sound), label, events, length, args.overlapping_events, rng)
        power = np.square(sound).mean()
        if start is None or power == 0:
            continue
        spot = slice(start, start + len(sound))
        level = rng.uniform(args.min_snr_db, args.max_snr_db)
        samples[spot] += sound * np.sqrt(10 ** (level / 10) / power)  # the noise has a power of 1
        events.append({"start": start / SAMPLING_RATE, "end": spot.stop / SAMPLING_RATE, "label": label})
    samples *= PEAK / np.abs(samples).max()
    return samples.astype(np.float32), sorted(events, key=lambda event: event["start"])


def noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of power 1 whose spectrum falls by 0 to 6 dB an octave."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** -rng.uniform(0, 1)
    spectrum[0] = 0
    samples = np.fft.irfft(spectrum, length)
    return samples / np.sqrt(np.square(samples).mean())


def cut(sound: np.ndarray, length: int, args: SoundscapeArguments, rng: np.random.Generator) -> np.ndarray:
    """A random part of a sound that is too long for its event or for the soundscape."""
    longest = min(round(args.max_event_seconds * SAMPLING_RATE), length)
    start = rng.integers(max(len(sound) - longest, 0) + 1)
    return sound[start : start + longest]


def place(
    duration: int, label: int, events: list[dict], length: int, overlapping: bool, rng: np.random.Generator
) -> int | None:
    """The first sample of an event that overlaps no other, or none of its own label; `None` where there is no room."""
    others = [event for event in events if not overlapping or event["label"] == label]
    for _ in range(NUM_TRIES):
        start = int(rng.integers(length - duration + 1))
        first, stop = start / SAMPLING_RATE, (start + duration) / SAMPLING_RATE
        if all(stop < event["start"] or first > event["end"] for event in others):
            return start
    return None
