"""Names of files and labels of others neither control the terminal nor end a command that cannot encode them."""

import os

import pytest

import predict
import stream
from hear_hf import (
    HEARConfig,
    HEARFeatureExtractor,
    HEARForAudioClassification,
    HEARForAudioFrameClassification,
)
from helpers import SMALL, write_tone

NAMES = ["\x1b[31mred.wav", "two\nlines.wav", os.fsdecode(b"caf\xe9.wav")]


LABELS = {i: f"\x1b[3{i}mlabel\n" for i in range(7)}


@pytest.fixture(params=[HEARForAudioClassification, HEARForAudioFrameClassification])
def arguments(request, tmp_path):
    """A model, and of each name a clip and a file that is none."""
    config = HEARConfig(**SMALL | {"num_hidden_layers": 1}, id2label=LABELS, event_thresholds=[0.0] * 7)
    request.param(config).save_pretrained(tmp_path / "model")
    HEARFeatureExtractor().save_pretrained(tmp_path / "model")
    write_tone(tmp_path / "clip.wav", 300)
    contents, paths = {"good": (tmp_path / "clip.wav").read_bytes(), "broken": b"no sound"}, []
    for folder, content in contents.items():
        (tmp_path / folder).mkdir()
        for name in NAMES:
            try:
                (tmp_path / folder / name).write_bytes(content)
            except OSError:
                pytest.skip("this file system takes only UTF-8")
            paths.append(str(tmp_path / folder / name))
    return [str(tmp_path / "model"), *paths]


@pytest.mark.parametrize("command", [predict, stream])
def test_names_are_shown_on_a_line_each_in_printable_letters(command, arguments, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    printed = capsys.readouterr()
    shown = printed.out + printed.err + str(end.value)
    assert all(one.isprintable() or one in "\n\r" for one in shown)
    assert shown.count("red.wav") >= 2 and shown.count("two\\nlines.wav") >= 2 and "\nlines.wav" not in shown
