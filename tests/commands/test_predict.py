"""`examples/predict.py` on a small model: what it shows and writes of files, folders and patterns, and of none."""

import contextlib
import csv
import json
import os
import re
import sys
from pathlib import Path

import pytest
import soundfile
import torch

import predict
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioFrameClassification
from hear_hf.event_finder import EventFinder
from helpers import SMALL, noise, small_model, write_tone


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model().save_pretrained(folder)
    HEARFeatureExtractor().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Paths of three clips below the working directory, two of them in `clips/`."""
    monkeypatch.chdir(tmp_path)
    paths = [os.path.join(*parts) for parts in (("clips", "a.wav"), ("clips", "deep", "b.flac"), ("c.wav",))]
    for i, path in enumerate(paths):
        write_tone(tmp_path / path, 300 * (i + 1))
    (tmp_path / "clips" / "notes.txt").write_text("no clip")
    return paths


def names(lines):
    """The first column of the table, without its head."""
    return [line.split()[0] for line in lines.splitlines()[1:]]


def test_a_feature_extractor_of_another_rate_than_the_model_s_is_refused(tmp_path, clips):
    small_model().save_pretrained(tmp_path / "model")
    HEARFeatureExtractor(sampling_rate=32_000).save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit, match="the same in its config.json .* found: 16000 and 32000 Hz"):
        predict.main([str(tmp_path / "model"), *clips])


def test_each_file_gets_a_line_with_as_many_labels_as_asked_for(checkpoint, clips, capsys):
    predict.main([checkpoint, *clips, "--top_k", "2"])
    shown = capsys.readouterr().out
    head, *lines = shown.splitlines()
    assert head.split(maxsplit=1) == ["file", "2 likeliest labels and their scores"]
    for file, line in zip(clips, lines, strict=True):
        assert re.fullmatch(rf"{file} +LABEL_\d \d\.\d\d \| LABEL_\d \d\.\d\d", line)
    assert len({line.index("LABEL") for line in lines}) == 1  # a column
    predict.main(["--top-k", "2", "--trust_remote_code", checkpoint, *clips])
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["clips"], [0, 1]),
        (["clips/"], [0, 1]),
        (["clips/*"], [0]),
        (["**/*.flac"], [1]),
        (["c.wav", "clips", "**/*.wav"], [2, 0, 1]),
    ],
    ids=["folder", "folder with a slash", "pattern", "pattern of any depth", "each once"],
)
def test_folders_and_patterns_lead_to_their_audio_files(checkpoint, clips, capsys, arguments, expected):
    predict.main([checkpoint, *arguments])
    assert names(capsys.readouterr().out) == [clips[i] for i in expected]


def test_a_table_and_json_lines_hold_a_row_for_each_label(checkpoint, clips, capsys):
    for file in ("new/labels.csv", "labels.jsonl"):
        predict.main([checkpoint, "clips", "--output_file", file, "--top_k", "2"])
        assert capsys.readouterr().out == f"The labels of 2 files are in {file}.\n"
    with open("new/labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open("labels.jsonl") as file:
        assert [json.loads(line) | {"score": str(json.loads(line)["score"])} for line in file] == rows
    assert [row["path"] for row in rows] == [clips[0]] * 2 + [clips[1]] * 2
    assert 1 > float(rows[0]["score"]) > float(rows[1]["score"]) > 0


def test_broken_files_are_named_and_counted_and_the_others_classified(checkpoint, clips, capsys):
    with open("clips/a.wav", "wb") as file:
        file.write(b"RIFF, but no more")
    write_tone(Path("clips", "short.wav"), 440, seconds=0.001)
    with pytest.raises(SystemExit, match=r"^3 of 5 files could not be classified\.$"):
        predict.main([checkpoint, "clips", "absent.wav", "c.wav"])
    shown, refused = capsys.readouterr()
    assert names(shown) == clips[1:]
    named = [line.partition(": ")[0] for line in refused.splitlines() if ".wav: " in line]
    assert named == ["clips/a.wav", "clips/short.wav", "absent.wav"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the names of files are text")
@pytest.mark.parametrize("options", [[], ["--output_file", "t.csv"], ["--output_file", "t.jsonl"]])
def test_a_name_that_is_no_utf_8_is_shown_with_escapes_and_the_others_are_classified(
    checkpoint, clips, capsys, options
):
    Path(os.fsdecode(b"clips/caf\xe9.wav")).write_bytes(Path(clips[0]).read_bytes())
    with contextlib.suppress(SystemExit):
        predict.main([checkpoint, "clips", *options])
    printed = capsys.readouterr()
    found = printed.out + printed.err + "".join(Path(file).read_text(encoding="utf-8") for file in options[1:])
    assert r"clips/caf\xe9.wav" in found.replace(r"\\", "\\") and clips[0] in found and clips[1] in found


def test_an_empty_folder_is_refused(checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1 of 1 files"):
        predict.main([checkpoint, str(tmp_path)])
    assert f"{tmp_path}: must be an audio file, found none" in capsys.readouterr().err


def test_many_files_have_a_progress_bar_at_a_terminal(checkpoint, tmp_path, capsys, monkeypatch):
    for i in range(predict.NUM_WITHOUT_PROGRESS + 1):
        write_tone(tmp_path / "many" / f"{i}.wav", 440, seconds=0.05)
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=is_terminal: answer)
        predict.main([checkpoint, str(tmp_path / "many")])
        assert ("21/21" in capsys.readouterr().err) == is_terminal


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--output_file", "labels.txt"], "--output_file must end in .csv or .jsonl, found labels.txt"),
        (["--top_k", "0"], "--top_k must be at least 1, found 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_the_model_loads(option, message, capsys):
    with pytest.raises(SystemExit):
        predict.main(["absent", "clip.wav", *option])
    assert message in capsys.readouterr().err


def test_without_files_it_classifies_three_different_digits(checkpoint, capsys):
    pytest.importorskip("espeakng_loader", reason="the spoken digits need the extra `demo`")
    predict.main([checkpoint])
    found = [re.match(r'"(\w+)" by (\S+) +LABEL', line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert len({match[1] for match in found}) == len({match[2] for match in found}) == 3


def test_a_model_of_frames_gives_events(tmp_path, capsys):
    model = HEARForAudioFrameClassification(HEARConfig(**SMALL, event_thresholds=[0.45] * 7)).eval()
    torch.nn.init.normal_(model.frame_classifier.weight, std=0.2)
    torch.nn.init.zeros_(model.frame_classifier.bias)
    model.save_pretrained(tmp_path / "frames")
    HEARFeatureExtractor().save_pretrained(tmp_path / "frames")
    soundfile.write(tmp_path / "clip.wav", noise(20_000).numpy(), 16_000, subtype="FLOAT")
    events = EventFinder(model, HEARFeatureExtractor())(noise(20_000).numpy()).events
    predict.main([str(tmp_path / "frames"), str(tmp_path / "clip.wav")])
    name, *lines = capsys.readouterr().out.splitlines()
    assert name.endswith("clip.wav") and len(lines) == len(events) > 3
    assert all(event.label in line and f"{event.end:.2f} s" in line for event, line in zip(events, lines, strict=True))
    table = tmp_path / "events.csv"
    predict.main([str(tmp_path / "frames"), str(tmp_path / "clip.wav"), "--output_file", str(table)])
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    assert header == "path,start,end,label,score" and len(rows) == len(events)
