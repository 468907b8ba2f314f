"""`examples/predict.py` on a small model: what it prints for files, and for none."""

import re

import pytest

import predict
from hear_hf import HEARFeatureExtractor
from helpers import small_model, write_tone


@pytest.fixture
def checkpoint(tmp_path):
    small_model().save_pretrained(tmp_path / "model")
    HEARFeatureExtractor().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_each_file_gets_a_line_with_as_many_labels_as_asked_for(checkpoint, tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    for file in files:
        write_tone(tmp_path / file, 440)
    predict.main([checkpoint, *files, "--top_k", "2"])
    lines = capsys.readouterr().out.splitlines()
    for file, line in zip(files, lines, strict=True):
        assert re.fullmatch(rf"{file}: LABEL_\d \d+\.\d%, LABEL_\d \d+\.\d%", line)
    predict.main(["--top-k", "2", "--trust_remote_code", checkpoint, *files])
    assert capsys.readouterr().out.splitlines() == lines


def test_without_files_it_classifies_three_different_digits(checkpoint, capsys):
    pytest.importorskip("espeakng_loader", reason="the spoken digits need the extra `demo`")
    predict.main([checkpoint])
    found = [re.match(r'"(\w+)" by (\S+): LABEL', line) for line in capsys.readouterr().out.splitlines()]
    assert len({match[1] for match in found}) == len({match[2] for match in found}) == 3
