"""Speech synthesizers that are installed as programs: eSpeak NG and Flite. Each speaks a text in one of its voices."""

import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

TIMEOUT_SECONDS = 20.0  # for a few words; some voices cannot speak some texts


class ESpeakNG:
    """
    [eSpeak NG](https://github.com/espeak-ng/espeak-ng), a formant synthesizer of over a hundred languages.

    Args:
        program (`str`): The program or its path.

    Raises:
        `ValueError`: There is no such program, or it has no voices.
    """

    # Sounds of machines and monsters, and a test.
    NOT_HUMAN = re.compile("robo|announcer|demonic|storm|fast", re.IGNORECASE)

    def __init__(self, program: str):
        path = shutil.which(program)
        if path is None:
            raise ValueError(
                f"eSpeak NG must be installed, found no program {program!r}. On Debian and Ubuntu: "
                "`apt install espeak-ng`; on macOS: `brew install espeak-ng`; or name it with --espeak_ng."
            )
        self.program = path
        version = re.search(r": ([\d.]+\S*)", self._ask("--version"))
        self.name = f"eSpeak NG {version[1]}" if version else "eSpeak NG"
        # Columns: priority, language, age and gender, name, file, other languages.
        voices = [line.split() for line in self._ask("--voices").splitlines()[1:]]
        variants = [line.split() for line in self._ask("--voices=variant").splitlines()[1:]]
        self.languages = sorted({voice[1] for voice in voices})
        self.variants = sorted({voice[4].removeprefix("!v/") for voice in variants})
        self.variants = [variant for variant in self.variants if not self.NOT_HUMAN.search(variant)]
        if not self.languages or not self.variants:
            raise ValueError(f"{path} must have voices and variants, found none: reinstall eSpeak NG with its data.")

    def say(self, text: str, language: str, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """Speaks in a variant, at a speed and a pitch that are drawn: float32 samples, and their rate."""
        voice = f"{language}+{rng.choice(self.variants)}"
        options = ["-v", voice, "-s", str(rng.integers(80, 261)), "-p", str(rng.integers(10, 100)), "-z", "-b", "1"]
        found = subprocess.run(
            [self.program, *options, "--stdout", "--", text],
            capture_output=True,
            check=True,
            timeout=TIMEOUT_SECONDS,
        ).stdout
        # A wav that states no length, as it is written while it is spoken.
        return np.frombuffer(found[44:], "<i2").astype(np.float32) / 2**15, int.from_bytes(found[24:28], "little")

    def _ask(self, option: str) -> str:
        return subprocess.run([self.program, option], capture_output=True, check=True, encoding="utf-8").stdout


class Flite:
    """
    [Flite](https://github.com/festvox/flite), which speaks English by units of recorded speech.

    Args:
        program (`str`): The program or its path.
    """

    name = "Flite"
    VOICES = ("kal16", "awb", "rms", "slt")  # at 16 kHz; the others are limited to 8 kHz or to telling the time

    def __init__(self, program: str):
        self.program = program
        found = subprocess.run([program, "-lv"], capture_output=True, check=True, text=True).stdout.split()
        self.voices = [voice for voice in self.VOICES if voice in found]
        if not self.voices:
            raise ValueError(f"{program} must have one of the voices {', '.join(self.VOICES)}, found: {found}")

    def say(self, text: str, language: str, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """Speaks in a voice, at a speed and a pitch that are drawn: float32 samples, and their rate."""
        voice, stretch, pitch = rng.choice(self.voices), rng.uniform(0.7, 1.6), rng.uniform(80, 250)
        features = ["--setf", f"duration_stretch={stretch:.3f}", "--setf", f"int_f0_target_mean={pitch:.1f}"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.wav"
            subprocess.run(
                [self.program, "-voice", voice, *features, "-t", text, "-o", str(path)],
                capture_output=True,
                check=True,
                timeout=TIMEOUT_SECONDS,
            )
            return soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")
