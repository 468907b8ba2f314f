"""The published files of the teachers, which are too large to ship."""

import os
from pathlib import Path

import pytest

SOURCES = {
    "mn04_as_mAP_432.pt": "release v0.0.1 of https://github.com/fschmid56/EfficientAT",
    "speech_embedding.tflite": "embedding_model.tflite in the PyPI package pyopen-wakeword 1.1.0",
}


@pytest.fixture(scope="session")
def teacher_file():
    """Gives the path of a published file, from the folder that HEAR_TEACHERS_DIR names."""

    def find(name: str) -> Path:
        folder = os.environ.get("HEAR_TEACHERS_DIR")
        if not folder:
            pytest.skip(
                "HEAR_TEACHERS_DIR is not set: it must name a folder with the teachers' published files, "
                + "; ".join(f"{file} ({source})" for file, source in SOURCES.items())
            )
        path = Path(folder, name)
        if not path.is_file():
            pytest.skip(f"HEAR_TEACHERS_DIR lacks {name}, which is {SOURCES[name]}")
        return path

    return find


@pytest.fixture(scope="session")
def golden_teacher(golden_dir):
    """Gives the golden outputs of a published teacher, by clip and name."""

    def load(name: str) -> dict[str, dict]:
        from safetensors.torch import load_file

        path = golden_dir / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"HEAR_GOLDEN_DIR lacks {path.name}, outputs of the published code for the published weights")
        clips: dict[str, dict] = {}
        for key, tensor in load_file(path).items():
            clip, _, output = key.rpartition(".")
            clips.setdefault(clip, {})[output] = tensor
        return clips

    return load
