"""The check's process, which runs a model's own code: what it may know, for how long it lives, what it leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import push_to_hub
from hear_hf.sharing import elsewhere, temporary
from pushing import push, refused

ROOT = Path(__file__).parents[2]


@pytest.fixture
def spy(folder, tmp_path):
    """A model's folder whose code writes its environment to a file and then does what a test appends."""

    def write(code=""):
        with (folder / "masking_hear.py").open("a") as file:
            file.write(
                f"\nimport json, os, time\nopen({str(tmp_path / 'seen')!r}, 'w').write(json.dumps(dict(os.environ)))\n"
            )
            file.write(code)
        return folder

    return write


def started(pid_file, timeout=60):
    end = time.monotonic() + timeout
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < end, "the code of the model did not run"
        time.sleep(0.1)
    return int(pid_file.read_text())


def is_gone(pid, timeout=20):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_the_code_of_a_model_sees_no_token_and_no_key(spy, tmp_path, monkeypatch, real_loads):
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "hf_alice")
    push(spy(), "--trust_remote_code")  # also where the published model is downloaded, and with a token
    seen = (tmp_path / "seen").read_text()
    assert "PATH" in seen and "hf_alice" not in seen and str(Path.home()) + '"' not in seen


def test_code_that_is_not_the_package_s_is_shown_and_not_run_unasked(spy, tmp_path, real_loads, hub, capsys):
    message = refused(spy("x = '\x1b[2J'\n"))
    shown = capsys.readouterr().out
    assert "found other code in masking_hear.py" in message and "--trust_remote_code" in message
    assert "+import json, os, time" in shown and "\x1b" not in shown and "def share_mask" not in shown
    assert not (tmp_path / "seen").exists() and not hub.requests


def test_code_without_an_end_is_ended(spy, tmp_path, monkeypatch, real_loads):
    monkeypatch.setattr(elsewhere, "TIME_LIMIT", 15)
    code = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\nwhile True: pass\n"
    assert "it took longer than 15 s" in refused(spy(code), "--trust_remote_code")
    assert is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_the_check_dies_with_its_parent_and_the_next_run_clears_what_is_left(spy, tmp_path, monkeypatch, kind):
    code = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    folder, temp = spy(code), tmp_path / "temp"
    temp.mkdir()
    command = [sys.executable, push_to_hub.__file__, str(folder), "alice/hear", "--dry_run", "--trust_remote_code"]
    environment = os.environ | {"TMPDIR": str(temp), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    child = started(tmp_path / "pid")
    assert any(temp.iterdir())
    process.send_signal(kind)
    _, errors = process.communicate(timeout=60)
    assert is_gone(child)
    if kind == signal.SIGTERM:
        assert process.returncode == 1 and errors.strip().endswith("Interrupted.")
    else:
        assert any(temp.rglob("*.safetensors"))
        monkeypatch.setattr(temporary.tempfile, "tempdir", str(temp))
        monkeypatch.setattr(temporary, "YOUNG", -1)
        temporary.clear_abandoned()
    assert not any(temp.iterdir())


def test_the_folder_of_a_run_that_goes_on_and_those_of_others_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "YOUNG", -1)
    (tmp_path / f"{temporary.PREFIX}mine").mkdir()  # without a lock
    with temporary.temporary_folder() as ours:
        temporary.clear_abandoned()
        assert ours.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [f"{temporary.PREFIX}mine"]
