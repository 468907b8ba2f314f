"""Symbolic links in folders that are published: what they point to stays here, the Hub's own cache apart."""

import os

import pytest
from huggingface_hub import snapshot_download

import push_dataset
import push_space
from helpers import write_tone
from pushing import push, refused


@pytest.fixture
def secret(tmp_path):
    (tmp_path / "secret").write_text("hf_secret")
    return tmp_path / "secret"


@pytest.fixture
def tones(tmp_path):
    for label in ("low", "high"):
        write_tone(tmp_path / "tones" / label / "0.wav", 440)
    return tmp_path / "tones"


@pytest.fixture
def space(tmp_path):
    (tmp_path / "page" / "space").mkdir(parents=True)
    (tmp_path / "page" / "space" / "app.py").touch()
    (tmp_path / "page" / "space" / "README.md").write_text("---\nsdk: gradio\n---\n# Demo\n")
    return tmp_path / "page" / "space"


def refused_by(command, *arguments):
    with pytest.raises(SystemExit) as failure:
        command.main([*map(str, arguments)])
    return failure.value.code


@pytest.mark.parametrize("name", ["LICENSE_KEY", "README.md", "curve.png", "test_results.json"])
def test_a_link_that_leads_out_of_a_model_s_folder_is_refused_by_name(folder, secret, hub, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../secret")
    message = refused(folder)
    assert f"{folder / name} -> {secret}" in message and not hub.requests


@pytest.mark.parametrize("target", [".env", "gone"])
def test_a_link_to_a_hidden_file_of_the_folder_or_to_none_is_refused(folder, target):
    (folder / ".env").write_text("hf_secret")
    (folder / "LICENSE").symlink_to(target)
    assert "LICENSE" in refused(folder)


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "model.safetensors"])
def test_a_named_pipe_is_refused_by_name_and_not_waited_for(folder, space, name):
    for place in (folder, space):
        (place / name).unlink(missing_ok=True)
        os.mkfifo(place / name)
    assert str(folder / name) in refused(folder)
    message = refused_by(push_space, "alice/hear", "alice/demo", "--space_dir", space, "--dry_run")
    assert str(space / name) in message


def test_a_quantizer_that_is_a_link_is_refused(folder, saved):
    (folder / "quantizer").symlink_to(saved)
    assert "quantizer" in refused(folder)


def test_a_link_within_the_folder_and_a_folder_that_is_a_link_go_up(folder, hub, tmp_path):
    (folder / "LICENSE").write_text("MIT")
    (folder / "LICENCE").symlink_to("LICENSE")
    (tmp_path / "link").symlink_to(folder)
    push(tmp_path / "link")
    assert hub.repositories["models", "alice/hear"].main.files["LICENCE"] == b"MIT"


def test_a_snapshot_in_the_hub_s_cache_goes_up(folder, hub, tmp_path):
    push(folder)
    snapshot = snapshot_download("alice/hear", cache_dir=tmp_path / "cache")
    assert (tmp_path / "cache" / "models--alice--hear" / "snapshots") in (tmp_path / "cache").rglob("snapshots")
    push(snapshot, to="alice/copy")
    uploaded = hub.repositories["models", "alice/copy"].main.files
    assert uploaded["config.json"] == (folder / "config.json").read_bytes()


def test_a_linked_card_of_a_data_set_is_refused_by_name(tones, secret, hub):
    (tones / "README.md").symlink_to(secret)
    assert str(tones / "README.md") in refused_by(push_dataset, tones, "alice/tones") and not hub.requests


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_linked_clip_or_class_of_a_data_set_is_refused_by_name(tones, hub, tmp_path, is_folder):
    write_tone(tmp_path / "private" / "mine.wav", 440)
    link = tones / "mine" if is_folder else tones / "low" / "mine.wav"
    link.symlink_to(tmp_path / "private" if is_folder else tmp_path / "private" / "mine.wav")
    assert "mine.wav" in refused_by(push_dataset, tones, "alice/tones") and not hub.requests


def test_a_linked_clip_beside_a_table_is_refused_and_one_that_the_table_names_elsewhere_is_not(tones, tmp_path):
    table, outside = tones / "train.csv", tmp_path / "outside.wav"
    write_tone(outside, 440)
    table.write_text(f"audio,label\nlow/0.wav,low\n../outside.wav,high\n{outside},high\n")
    push_dataset.main([str(table), "alice/tones", "--dry_run"])
    (tones / "low" / "link.wav").symlink_to(outside)
    table.write_text("audio,label\nlow/0.wav,low\nlow/link.wav,high\n")
    assert "link.wav" in refused_by(push_dataset, table, "alice/tones", "--dry_run")


@pytest.mark.parametrize("place", ["parts.py", "deep/parts.py", "../sounds/dog.wav"])
def test_a_link_that_leads_out_of_a_space_is_refused_by_name(space, secret, hub, place):
    (space / place).parent.mkdir(exist_ok=True)
    (space / place).symlink_to(secret)
    message = refused_by(push_space, "alice/hear", "alice/demo", "--space_dir", space, "--dry_run")
    assert str(secret) in message


def test_a_folder_of_a_space_that_is_a_link_is_refused(space):
    (space / "loop").symlink_to(".")
    assert "loop" in refused_by(push_space, "alice/hear", "alice/demo", "--space_dir", space, "--dry_run")
