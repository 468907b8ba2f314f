"""Tables of `precompute_teacher.py --for_distillation` against the teachers themselves, and training on them."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_distillation import NO_SAVES, SAMPLING_RATE, arguments, load, losses
from transformers import AutoModelForAudioClassification

import distill
import precompute_teacher
from hear_hf.data.decoding import decode_audio
from hear_hf.data.teacher_outputs import collate_outputs, crop_outputs, read_outputs
from hear_hf.training.distillation_teachers import DistillationTeacherArguments
from hear_hf.training.stored_teachers import as_teacher_outputs
from helpers import SOUND_LABELS

STILL = ["--mixture_share", "0", "--random_gain_db", "0", "--max_length_seconds", "2"]


def storing(clips, output_dir, *teachers):
    argv = ["--data_dir", clips, "--output_dir", output_dir, "--for_distillation", "--teacher_trust_remote_code"]
    return [str(word) for word in (*argv, "--clips_per_file", 6, "--teacher_name_or_path", *teachers)]


@pytest.fixture(scope="module")
def tables(clips, sounds, words, tmp_path_factory):
    """The folder of the tables of both teachers."""
    folder = tmp_path_factory.mktemp("tables")
    precompute_teacher.main(storing(clips, folder, words, sounds))
    return folder


def from_tables(tables: Path, output_dir: Path, *more: str) -> list[str]:
    argv = arguments(Path(), output_dir, [])
    argv = argv[2 : argv.index("--teacher_name_or_path")] + argv[argv.index("--max_steps") :]
    return [*argv, "--train_file", str(tables / "*.parquet"), "--stored_teachers", *STILL, *more]


def test_tables_hold_what_each_teacher_makes_of_each_clip(tables, sounds, words):
    teachers = load(words, sounds)
    rows = [row for path in sorted(tables.iterdir()) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 16
    for row in rows[::5]:
        waveform = torch.from_numpy(decode_audio(row["audio"], SAMPLING_RATE))[None]
        for teacher, stored in zip(teachers, read_outputs(row["teacher_outputs"]), strict=True):
            outputs = teacher(waveform, torch.ones_like(waveform))
            np.testing.assert_allclose(stored["clip_embedding"], outputs.clip_embedding[0], rtol=1e-2, atol=1e-2)
            np.testing.assert_allclose(stored["frames"], outputs.frames[0], rtol=1e-2, atol=1e-2)
            assert stored["step"] == outputs.step[0] and stored["first_center"] == outputs.first_center[0]
            assert len(stored["logits"]) == teacher.num_labels


def test_tables_give_the_losses_of_the_teachers_themselves(tables, clips, sounds, words, tmp_path):
    distill.main(arguments(clips, tmp_path / "beside", [words, sounds], *STILL, *NO_SAVES))
    distill.main(from_tables(tables, tmp_path / "stored", *NO_SAVES))
    names = ["loss", "label_loss", "agreement", "eval_loss", "eval_mean_average_precision"]
    for name in [*names, "frame_embedding_loss_words", "clip_embedding_loss_sounds"]:
        beside, stored = (losses(tmp_path / folder, name) for folder in ("beside", "stored"))
        assert stored == pytest.approx(beside, rel=1e-2) and len(stored) > 0, name
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "stored")
    assert model.config.id2label == SOUND_LABELS and "cc0-1.0" in (tmp_path / "stored" / "README.md").read_text()


def test_a_stream_of_tables_is_learned_from(tables, tmp_path):
    distill.main(from_tables(tables, tmp_path, "--streaming", *NO_SAVES))
    assert len(losses(tmp_path, "label_loss")) == 4


def test_pools_that_were_stored_apart_are_balanced_together(tables, clips, sounds, words, tmp_path):
    more = ["--max_train_samples", "5"]
    precompute_teacher.main([*storing(clips, tmp_path / "few", words, sounds), *more])
    argv = from_tables(tables, tmp_path / "run", "--source_weights", "equal", *NO_SAVES)
    argv.insert(argv.index("--stored_teachers"), str(tmp_path / "few" / "*.parquet"))
    distill.main(argv)
    assert len(losses(tmp_path / "run", "label_loss")) == 4


def test_a_crop_has_the_frames_of_its_own_time():
    frames = np.arange(20, dtype=np.float32)[:, None]
    clip = {"frames": frames, "clip_embedding": np.ones(1, np.float32), "logits": np.zeros(0, np.float32)}
    clip |= {"num_frames": np.array([20.0]), "first_center": np.array([0.4]), "step": np.array([0.08])}
    for start, stop in ((0.0, 0.5), (0.5, 1.3), (1.5, 2.5)):
        (fields,) = collate_outputs([[crop_outputs(clip, start, stop)]])
        found, is_covered = as_teacher_outputs(fields).at_encoder_frames(round((stop - start) / 0.02))
        seconds = start + 0.005 + 0.02 * np.arange(found.shape[1])
        expected = np.clip((seconds - 0.4) / 0.08, 0, 19)
        covered = is_covered[0].numpy()
        np.testing.assert_allclose(found[0, covered, 0], expected[covered], atol=1e-4)
        inside = (seconds > 0.4 - 0.039) & (seconds < 0.4 + 19.49 * 0.08)
        assert covered[inside].all() and not covered[seconds < 0.36].any()


def test_mixtures_need_teachers_that_hear_them_and_tables_their_outputs(tables, clips, tmp_path):
    argv = from_tables(tables, tmp_path / "run")
    argv[argv.index("--mixture_share") + 1] = "0.5"
    with pytest.raises(ValueError, match="must come without mixtures, shifts, .* found mixture_share=0.5"):
        distill.main(argv)
    argv = from_tables(tables, tmp_path / "run")
    argv[argv.index("--train_file") + 1] = str(clips / "*.wav")
    with pytest.raises(ValueError, match="`stored_teachers` must come with tables in `train_file`"):
        distill.main(argv)


def test_clips_that_cannot_be_used_have_no_outputs_and_are_skipped(clips, sounds, tmp_path, capsys, caplog):
    folder = tmp_path / "clips"
    folder.mkdir()
    for path in clips.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.wav").write_bytes(b"RIFF")
    precompute_teacher.main(storing(folder, tmp_path / "tables", sounds))
    assert "Skipped 1 clips, which cannot be used and have no outputs" in capsys.readouterr().out
    distill.main(from_tables(tmp_path / "tables", tmp_path / "run", "--max_steps", "6", *NO_SAVES))
    assert "1 unusable clips were skipped" in caplog.text


def test_each_teacher_has_one_revision_or_all_the_same():
    with pytest.raises(ValueError, match="`teacher_revision` must be one for all or one for each of the 3 teachers"):
        DistillationTeacherArguments(["a", "b", "c"], teacher_revision=["main", "v2"])
