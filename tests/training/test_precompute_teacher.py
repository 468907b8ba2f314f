"""`examples/precompute_teacher.py`: its tables against the teacher's states, training on them, and interruptions."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_pretraining import losses, quantizer_arguments
from transformers import AutoModelForPreTraining

import precompute_teacher
import train_quantizer
from hear_hf.data.decoding import decode_audio
from hear_hf.evaluation.frozen_encoders import FrozenEncoder
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
    assert "1 clips cannot be used and have no states" in capsys.readouterr().out


def test_a_quantizer_learns_from_the_tables(clips, teacher, tmp_path):
    precompute_teacher.main(arguments(clips, teacher, tmp_path / "tables"))
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


@pytest.mark.parametrize(
    "more, message",
    [
        (["--streaming", True], "The clips must come without `streaming`"),
        (["--batch_size", 0], "`batch_size` must be positive, found: 0"),
    ],
)
def test_what_cannot_work_is_said_at_once(clips, teacher, tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        precompute_teacher.main(arguments(clips, teacher, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_a_teacher_must_be_named(clips, tmp_path):
    with pytest.raises(ValueError, match="`teacher_name_or_path` must name an audio model"):
        precompute_teacher.main(["--data_dir", str(clips), "--output_dir", str(tmp_path)])
