"""`benchmarks/few_shot.py` and `benchmarks/wake_word.py` on tones and tiny random models."""

import json

import numpy as np
import pytest

import few_shot
import wake_word
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification
from helpers import SMALL, linear_model, write_tone

FREQUENCIES = {"low": 200, "middle": 1000, "high": 5000}


def write_table(path, num_clips, **columns):
    rows = [",".join(["audio", "label", *columns])]
    for i in range(num_clips):
        label = list(FREQUENCIES)[i % 3]
        write_tone(path.parent / path.stem / f"{i}.wav", FREQUENCIES[label], 0.15, seed=i)
        rows.append(",".join([f"{path.stem}/{i}.wav", label, *(str(values[i // 3]) for values in columns.values())]))
    path.write_text("\n".join(rows))
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    HEARForAudioClassification(HEARConfig(**SMALL)).save_pretrained(folder)
    HEARFeatureExtractor().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return {
        "--esc50_file": write_table(folder / "esc50.csv", 24, fold=[1, 1, 2, 2, 3, 3, 4, 4]),
        "--digits_train_file": write_table(folder / "digits.csv", 12),
        "--digits_test_file": write_table(folder / "digits_test.csv", 6),
    }


def options(tables):
    return [word for pair in tables.items() for word in pair]


def test_each_model_has_a_mean_and_a_spread_for_each_number_of_clips(model, tables, tmp_path):
    words = ["--clips_per_class", "1", "3", "9", "--num_draws", "2", "--min_length_seconds", "0"]
    rows = few_shot.main(["--model_name_or_path", model, *options(tables), *words, "--output_dir", str(tmp_path)])
    tasks = rows[model]["tasks"]
    assert list(tasks) == ["ESC-50, folds 1 to 3 -> 4", "digits, other takes"]
    for found in tasks.values():
        assert [len(found[size]["scores"]) for size in ("1", "3", "9")] == [2, 2, 1]  # all clips are one draw
        assert found["9"]["score"] > 0.8 and found["9"]["std"] == 0
    assert json.loads((tmp_path / "results.json").read_text())["models"] == rows
    assert "| ESC-50, folds 1 to 3 -> 4 | 1 | 3 | 9 |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_each_draw_has_as_many_clips_of_each_class(model, tables):
    args = few_shot.parse_arguments(few_shot.FewShotArguments, ["--model_name_or_path", model])[0]
    labels = np.repeat([0, 1, 2], 20)
    drawn = few_shot.draws(labels, 4, args)
    assert len(drawn) == 10 and all(np.bincount(labels[chosen]).tolist() == [4, 4, 4] for chosen in drawn)
    assert any(set(drawn[0]) != set(other) for other in drawn)


@pytest.mark.parametrize("words", [[], ["--digits_train_file", "a.csv"]])
def test_clips_are_asked_for(model, words):
    with pytest.raises(ValueError, match="found none|come together"):
        few_shot.main(["--model_name_or_path", model, *words])


def save_listener(folder, bias):
    """A model that hears its one label always or never."""
    names = {"id2label": {0: "high"}, "label2id": {"high": 0}, "problem_type": "multi_label_classification"}
    model = linear_model(num_labels=1, false_alarm_rate=0.01, **names)
    model.classifier.out_proj.weight.data.zero_()
    model.classifier.out_proj.bias.data.fill_(bias)
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("bias", "heard", "alarms"), [(3.0, 1.0, 1), (-3.0, 0.0, 0)])
def test_words_and_false_alarms_are_counted(tables, tmp_path, bias, heard, alarms):
    model, table = save_listener(tmp_path / "model", bias), tables["--digits_train_file"]
    words = ["--model_name_or_path", model, "--label", "high", "--word_file", table, "--other_file", table]
    more = ["--hours", "0.0004", "--window", "0.5", "--output_dir", str(tmp_path)]
    figures = wake_word.main([*words, *more])
    assert (figures["heard"], figures["num_words"], figures["false_alarms"]) == (heard, 4, alarms)
    assert figures["hours"] == pytest.approx(0.0004, rel=0.01)
    assert json.loads((tmp_path / "wake_word.json").read_text())["false_alarms"] == alarms


def test_a_model_without_thresholds_and_an_unknown_label_are_refused(model, tables, tmp_path):
    table = tables["--digits_train_file"]
    words = ["--word_file", table, "--other_file", table, "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match="taught 'high' with --unknown"):
        wake_word.main(["--model_name_or_path", model, "--label", "high", *words])
    listener = save_listener(tmp_path / "model", 3.0)
    with pytest.raises(ValueError, match="taught 'low' with --unknown"):
        wake_word.main(["--model_name_or_path", listener, "--label", "low", *words])


def test_what_is_heard_again_at_once_counts_once():
    class Stream:
        def push(self, block):
            return [type("Result", (), {"scores": [score], "end": end}) for end, score in block]

    block = [(0.5, 0.9), (1.0, 0.8), (1.5, 0.1), (3.0, 0.7), (9.0, 0.6)]
    assert wake_word.times_heard(Stream(), [block], 0, pause=2.0) == [0.5, 9.0]
