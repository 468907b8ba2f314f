"""`examples/precompute_teacher.py`: its tables against the teacher's states, training on them, and interruptions.

And a teacher that runs beside the training against the same one's tables.
"""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from test_pretraining import losses, quantizer_arguments
from transformers import AutoModelForPreTraining

import precompute_teacher
import train_quantizer
from hear_hf import HEARFeatureExtractor
from hear_hf.data import teacher_states
from hear_hf.data.decoding import decode_audio
from hear_hf.data.pretraining_clips import load_pretraining_clips
from hear_hf.data.teacher_states import TeacherStatesArguments
from hear_hf.data.unlabelled import PretrainingDataArguments
from hear_hf.evaluation.frozen_encoders import FrozenEncoder
from hear_hf.spectrogram_hear import num_encoder_frames
from hear_hf.training import quantization
from hear_hf.training.pretraining import PretrainingCollator
from hear_hf.training.quantization import load_teacher
from hear_hf.training.teachers import TeacherArguments
from helpers import save_wav2vec2, write_tone


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of nine tones, the longest 0.6 s, and a broken file."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(9):
        write_tone(folder / f"{i}.wav", 200 * (1 + i % 4), 0.2 + 0.05 * i, seed=i)
    (folder / "broken.wav").write_bytes(b"RIFF and nothing else")
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    save_wav2vec2(folder)
    return folder


def arguments(clips, teacher, output_dir, *more):
    line = ["--data_dir", clips, "--teacher_name_or_path", teacher, "--teacher_layer", 1, "--output_dir", output_dir]
    return [str(word) for word in (*line, "--clips_per_file", 4, "--batch_size", 3, *more)]


def test_the_tables_hold_the_teacher_s_states_of_each_clip(clips, teacher, tmp_path, capsys):
    paths = precompute_teacher.main(arguments(clips, teacher, tmp_path))
    assert [path.name for path in paths] == [f"clips-0000{i}-of-00003.parquet" for i in range(3)]
    assert sorted(tmp_path.iterdir()) == paths  # nothing half-written is left
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 10
    encoder = FrozenEncoder.from_pretrained(str(teacher), layer=1)
    for row in rows:
        if row["audio"]["path"].endswith("broken.wav"):
            assert row["teacher_hidden_states"] is None and row["num_frames"] == 0
            continue
        expected = encoder([decode_audio(row["audio"], 16_000)], 16_000)[0].cpu().numpy()
        states = np.array(row["teacher_hidden_states"], np.float32).reshape(row["num_frames"], 20)
        np.testing.assert_allclose(states, expected, rtol=1e-3, atol=1e-3)
    assert "Skipped 1 clips, which cannot be used and have no states" in capsys.readouterr().out


def test_a_quantizer_learns_from_the_tables(clips, teacher, tmp_path, monkeypatch):
    """The tables lie elsewhere than the clips, which were given by a relative path."""
    monkeypatch.chdir(clips.parent)
    precompute_teacher.main(arguments(clips.name, teacher, tmp_path / "tables"))
    line = quantizer_arguments(clips, tmp_path / "run")
    line[:2] = ["--train_file", str(tmp_path / "tables" / "*.parquet")]
    train_quantizer.main(line)
    assert AutoModelForPreTraining.from_pretrained(tmp_path / "run").config.teacher_hidden_size == 20
    distillation = losses(tmp_path / "run", "distillation_loss")
    assert len(distillation) == 4 and all(0 < loss < 2 for loss in distillation)


def test_an_interrupted_run_goes_on_behind_its_last_table(clips, teacher, tmp_path):
    paths = precompute_teacher.main(arguments(clips, teacher, tmp_path))
    before = [path.read_bytes() for path in paths]
    kept = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    assert precompute_teacher.main(arguments(clips, teacher, tmp_path)) == paths
    assert [path.read_bytes() for path in paths] == before
    assert paths[0].stat().st_mtime_ns == kept


@pytest.mark.parametrize("more", [["--teacher_layer", 0], ["--max_train_samples", 9]])
def test_tables_of_another_teacher_or_other_clips_are_left_alone(clips, teacher, tmp_path, more):
    path = precompute_teacher.main(arguments(clips, teacher, tmp_path))[0]
    before = path.read_bytes()
    with pytest.raises(ValueError, match="must be of this teacher and these clips, .*Give another --output_dir"):
        precompute_teacher.main(arguments(clips, teacher, tmp_path, *more))
    assert path.read_bytes() == before


def test_as_many_clips_of_other_names_are_refused(clips, teacher, tmp_path):
    precompute_teacher.main(arguments(clips, teacher, tmp_path / "tables"))
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for file in clips.iterdir():
        (renamed / f"other_{file.name}").write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="must be of this teacher and these clips"):
        precompute_teacher.main(arguments(renamed, teacher, tmp_path / "tables"))


def test_clips_of_the_same_names_in_tables_of_another_set_are_refused(clips, teacher, tmp_path):
    def table(seed):
        audio = [{"bytes": encoded(seed + i), "path": f"{i}.wav"} for i in range(3)]
        pd.DataFrame({"audio": audio}).to_parquet(tmp_path / "set.parquet")
        words = arguments(clips, teacher, tmp_path / "tables")
        place = words.index("--data_dir")
        return [*words[:place], "--train_file", str(tmp_path / "set.parquet"), *words[place + 2 :]]

    def encoded(seed):
        write_tone(tmp_path / "tone.wav", 300, seed=seed)
        return (tmp_path / "tone.wav").read_bytes()

    precompute_teacher.main(table(0))
    with pytest.raises(ValueError, match="must be of this teacher and these clips"):
        precompute_teacher.main(table(5))


def test_one_folder_is_of_one_run(clips, teacher, tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(ValueError, match="found another at work"):
        precompute_teacher.main(arguments(clips, teacher, tmp_path))
    precompute_teacher.main(arguments(clips, teacher, tmp_path))
    with pytest.raises(ValueError, match="must hold tables of this run alone"):
        precompute_teacher.main(arguments(clips, teacher, tmp_path, "--clips_per_file", 2))


@pytest.mark.parametrize(
    "more, message",
    [
        (["--max_unusable_share", 2], "`max_unusable_share` must lie between 0 and 1, found: 2"),
        (["--batch_size", 0], "`batch_size` must be positive, found: 0"),
    ],
)
def test_what_cannot_work_is_said_at_once(clips, teacher, tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        precompute_teacher.main(arguments(clips, teacher, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--streaming", "--validation_share", "--teacher_file"])
def test_it_has_no_options_of_a_training(clips, teacher, tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        precompute_teacher.main(arguments(clips, teacher, tmp_path / "out", option, 1))
    assert f"unknown arguments: {option} 1" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_clips_shorter_than_asked_for_have_no_states(clips, teacher, tmp_path, capsys):
    more = ["--min_length_seconds", 0.3, "--max_unusable_share", 0.4]
    paths = precompute_teacher.main(arguments(clips, teacher, tmp_path, *more))
    num_frames = [n for path in paths for n in pq.read_table(path)["num_frames"].to_pylist()]
    assert num_frames.count(0) == 3  # 0.2 s, 0.25 s and the broken one
    assert "Skipped 3 clips" in capsys.readouterr().out


def test_too_many_unusable_clips_are_an_error(clips, teacher, tmp_path):
    with pytest.raises(
        ValueError, match=r"(?s)At most 10% .* found 2 of \d+ read:\n.*wav: it lasts .*less than 300.0 ms"
    ):
        precompute_teacher.main(arguments(clips, teacher, tmp_path, "--min_length_seconds", 0.3))


@pytest.mark.parametrize("standardize, whitening", [(True, 1.0), (True, 0.5), (False, 1.0)])
def test_a_teacher_beside_the_training_gives_the_targets_of_its_stored_states(
    clips, teacher, tmp_path, standardize, whitening, monkeypatch
):
    """The same clips are measured (here seven of the ten), on the same grid; float16 rounds the stored states."""
    monkeypatch.setattr(quantization, "NUM_STATISTICS_CLIPS", 7)
    monkeypatch.setattr(teacher_states, "NUM_STATISTICS_CLIPS", 7)
    precompute_teacher.main(arguments(clips, teacher, tmp_path))
    shared = {"validation_share": 0.2, "max_unusable_share": 1}
    states_args = TeacherStatesArguments(standardize_teacher=standardize, teacher_whitening=whitening)
    sources = {"train_file": [str(tmp_path / "*.parquet")]}, {"data_dir": str(clips)}
    (stored, held_out), (bare, held_out_bare) = (
        load_pretraining_clips(PretrainingDataArguments(**source, **shared), 16_000, 2.0, 3, teacher_args=states_args)
        for source in sources
    )
    teacher_args = TeacherArguments(teacher_name_or_path=str(teacher), teacher_layer=1)
    running = load_teacher(teacher_args, states_args, bare, 16_000, torch.device("cpu"))
    collator = PretrainingCollator(HEARFeatureExtractor())
    for with_states, without in ((stored, bare), (held_out, held_out_bare)):
        assert len(with_states) == len(without) > 1
        batch = collator([with_states[i] for i in range(len(with_states))])
        inputs = collator([without[i] for i in range(len(without))])
        assert torch.equal(batch["input_values"], inputs["input_values"])
        lengths = inputs["attention_mask"].sum(1)
        targets = running(*inputs.values(), num_encoder_frames(lengths, 160).tolist())
        assert targets.std() > 0.1
        torch.testing.assert_close(targets, batch["teacher_hidden_states"], rtol=0, atol=5e-3)


def test_a_teacher_beside_a_stream_is_measured_on_the_clips_that_stored_states_would_be(clips, teacher, tmp_path):
    precompute_teacher.main(arguments(clips, teacher, tmp_path))
    data_args = PretrainingDataArguments(train_file=[str(tmp_path / "*.parquet")], streaming=True)
    states_args = TeacherStatesArguments()
    stored, _ = load_pretraining_clips(data_args, 16_000, 2.0, teacher_args=states_args)
    bare, _ = load_pretraining_clips(data_args, 16_000, 2.0)
    teacher_args = TeacherArguments(teacher_name_or_path=str(teacher), teacher_layer=1)
    running = load_teacher(teacher_args, states_args, bare, 16_000, torch.device("cpu"))
    np.testing.assert_allclose(running.features.mean, stored.teacher.mean, atol=1e-3)
    np.testing.assert_allclose(running.features.std, stored.teacher.std, atol=1e-3)


def test_a_teacher_must_be_named(clips, tmp_path):
    with pytest.raises(ValueError, match="`teacher_name_or_path` must name an audio model"):
        precompute_teacher.main(["--data_dir", str(clips), "--output_dir", str(tmp_path)])
