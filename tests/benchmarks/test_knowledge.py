"""`benchmarks/knowledge.py` on tones and tiny random models: what it trains and scores on, and what it leaves."""

import json

import numpy as np
import pytest

import knowledge
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification
from helpers import SMALL, save_wav2vec2, write_tone
from teacher_models import EfficientATConfig, EfficientATFeatureExtractor, EfficientATForAudioClassification

FREQUENCIES = {"low": 200, "middle": 1000, "high": 5000}


def write_table(path, num_clips, column, values):
    """Tones in turn, with another column whose values are in turn, too."""
    rows, rng = [f"audio,label,{column}"], np.random.default_rng(len(path.stem))
    for i in range(num_clips):
        label, value = list(FREQUENCIES)[i % 3], values[i // 3 % len(values)]
        write_tone(path.parent / path.stem / f"{i}.wav", FREQUENCIES[label], rng.uniform(0.1, 0.2), rng.integers(1000))
        rows.append(f"{path.stem}/{i}.wav,{label},{value}")
    path.write_text("\n".join(rows))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return {
        "--esc50_file": write_table(folder / "esc50.csv", 48, "fold", [1, 2, 3, 4]),
        "--digits_train_file": write_table(folder / "digits.csv", 36, "speaker", ["ann", "bob", "eve"]),
        "--digits_test_file": write_table(folder / "digits_test.csv", 18, "speaker", ["ann", "bob", "eve"]),
        "--commands_train_file": write_table(folder / "commands.csv", 36, "speaker", ["jim"]),
        "--commands_validation_file": write_table(folder / "commands_test.csv", 18, "speaker", ["sue"]),
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A teacher, its copy as a student, and a model without labels."""
    folder = tmp_path_factory.mktemp("models")
    model = HEARForAudioClassification(HEARConfig(**SMALL))
    for name in ("teacher", "student"):
        model.save_pretrained(folder / name)
        HEARFeatureExtractor().save_pretrained(folder / name)
    save_wav2vec2(folder / "wav2vec2")
    return folder


def options(files):
    return [word for pair in files.items() for word in pair]


def arguments(models, files, *more):
    return knowledge.parse_arguments(
        knowledge.KnowledgeArguments, ["--model_name_or_path", str(models / "student"), *options(files), *more]
    )[0]


def test_all_tasks_and_models_stand_in_one_table_a_record_and_a_figure(models, files, tmp_path):
    names = [str(models / name) for name in ("student", "wav2vec2", "teacher")]
    rows = knowledge.main(
        ["--model_name_or_path", *names, *options(files), "--teacher_name_or_path", str(models / "teacher"),
         "--agreement_file", files["--esc50_file"], "--max_agreement_clips", "10", "--min_length_seconds", "0",
         "--commands_per_class", "8", "--output_dir", str(tmp_path)]
    )  # fmt: skip
    tones = ["ESC-50, folds 1+2+3 -> 4", "digits, each speaker left out", "commands, 8 a class"]
    for name in names:
        assert all(rows[name]["tasks"][task]["score"] > 0.8 for task in tones), rows[name]
        assert rows[name]["tasks"]["speakers, other takes"]["score"] < 0.8  # all of them speak the same tones
    agreement = [rows[name]["tasks"].get(knowledge.AGREEMENT) for name in names]
    assert agreement == [{"score": 1.0, "num_scored": 10}, None, None]
    assert json.loads((tmp_path / "results.json").read_text())["models"] == rows
    _, _, header, _, *lines = (tmp_path / "results.md").read_text().splitlines()
    assert header.split(" | ")[2:5] == [tones[0], tones[1], "speakers, other takes"]
    assert [line.split(" | ")[0] for line in lines] == ["| student", "| wav2vec2", "| teacher"]
    assert lines[1].endswith("|  |") and lines[0].endswith("| 100.0 ± 0.0 |")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_converted_teacher_stands_beside(files, tmp_path):
    EfficientATForAudioClassification(EfficientATConfig(width_mult=0.1)).save_pretrained(tmp_path / "mn01")
    EfficientATFeatureExtractor().save_pretrained(tmp_path / "mn01")
    rows = knowledge.main(
        ["--model_name_or_path", str(tmp_path / "mn01"), "--trust_remote_code", "--esc50_file", files["--esc50_file"],
         "--teacher_name_or_path", str(tmp_path / "mn01"), "--agreement_file", files["--esc50_file"],
         "--output_dir", str(tmp_path / "run")]
    )  # fmt: skip
    assert rows[str(tmp_path / "mn01")]["tasks"]["ESC-50, folds 1+2+3 -> 4"]["score"] > 0.5


def test_no_fold_speaker_or_take_is_on_both_sides(models, files):
    args = arguments(models, files, "--esc50_train_folds", "2", "3", "--esc50_test_folds", "1", "4")
    clips, (task,) = knowledge.sounds(args)
    (fold,) = task.folds
    assert set(clips.groups[fold.train]) == {"2", "3"} and set(clips.groups[fold.test]) == {"1", "4"}
    clips, (digits, speakers) = knowledge.digits(args)
    for fold in digits.folds:
        assert len(set(clips.groups[fold.test])) == 1 and not set(clips.groups[fold.test]) & set(
            clips.groups[fold.train]
        )
    (fold,) = speakers.folds
    assert (len(fold.train), len(fold.test)) == (36, 18) and set(clips.splits[fold.test]) == {"validation"}
    assert (np.unique(clips.groups, return_inverse=True)[1] == speakers.labels).all()


def test_commands_are_drawn_by_class_and_seed(models, files):
    clips = {seed: knowledge.commands(arguments(models, files, "--commands_per_class", "5", "--seed", seed))
             for seed in "01"}  # fmt: skip
    (fold,) = clips["0"][1][0].folds
    assert np.bincount(clips["0"][0].labels[fold.train]).tolist() == [5, 5, 5] and len(fold.test) == 18
    paths = [[clip["path"] for clip in clips[seed][0].audio["audio"]] for seed in "01"]
    assert paths[0] != paths[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--digits_test_file": None}, "`digits_train_file` and `digits_test_file` must come together"),
        ({"--esc50_test_folds": "5"}, r"must be some of \[1, 2, 3, 4\], found: \[5\]"),
        ({"--teacher_name_or_path": "teacher"}, "`teacher_name_or_path` and `agreement_file` must come together"),
    ],
)
def test_what_cannot_be_compared_is_refused(models, files, changes, message):
    files = {name: value for name, value in (files | changes).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        knowledge.sounds(arguments(models, files))


def test_no_clips_at_all_are_refused(models):
    with pytest.raises(ValueError, match="There must be clips, found none"):
        arguments(models, {})
