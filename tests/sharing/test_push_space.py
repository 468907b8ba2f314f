"""`examples/push_space.py` against a Hub on the loopback interface."""

from pathlib import Path

import pytest
import yaml

import push_space
from hear_hf.sharing.spaces import stage_space

SPACE = Path(push_space.__file__).parent / "space"


@pytest.fixture
def space(tmp_path):
    folder = tmp_path / "space"
    folder.mkdir()
    (folder / "app.py").write_text("import json\nfrom parts import show\n")
    (folder / "parts.py").write_text("show = print\n")
    (folder / "README.md").write_text("---\nsdk: gradio\napp_file: app.py\n---\n# Demo\n")
    return folder


def push(folder, *options):
    push_space.main(["alice/hear", "alice/demo", "--space_dir", str(folder), *options])


def test_the_space_goes_up_with_the_model_s_name_and_what_it_imports(space, hub):
    hub.create("alice/hear")
    push(space)
    repository = hub.repositories["spaces", "alice/demo"]
    files = repository.main.files
    assert repository.sdk == "gradio"
    assert {"app.py", "parts.py"} <= set(files)
    assert yaml.safe_load(files["README.md"].split(b"---")[1])["models"] == ["alice/hear"]


def test_the_model_s_revision_is_written_when_the_space_is_published(space, hub):
    sha = hub.create("alice/hear").main.sha
    push(space)
    named = hub.repositories["spaces", "alice/demo"].main.files["model_id.txt"].decode()
    assert len(sha) == 40 and named == f"alice/hear@{sha}\n"


def test_a_model_that_is_a_folder_goes_up_with_its_code_as_part_of_the_space(space, hub, folder):
    push_space.main([str(folder), "alice/demo", "--space_dir", str(space)])
    files = hub.repositories["spaces", "alice/demo"].main.files
    assert files["model_id.txt"] == b"model\n"
    assert {"model/config.json", "model/preprocessor_config.json", "model/modeling_hear.py"} <= set(files)
    assert yaml.safe_load(files["README.md"].split(b"---")[1])["models"] == []


def test_a_folder_that_is_no_complete_model_is_refused(space, hub, folder):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(SystemExit, match="The model must load and run"):
        push_space.main([str(folder), "alice/demo", "--space_dir", str(space)])
    assert not hub.repositories


def test_a_space_for_a_model_that_is_not_on_the_hub_is_refused(space, hub):
    with pytest.raises(SystemExit, match="found no alice/hear: publish it first"):
        push(space)
    assert not hub.repositories


def test_a_dry_run_needs_no_network(space, hub, capsys):
    push(space, "--dry-run")
    assert not hub.requests and "model_id.txt" in capsys.readouterr().out


def test_a_public_space_of_a_private_model_is_told_to_have_a_token(space, hub, capsys):
    hub.create("alice/hear", private=True)
    push(space)
    assert "alice/hear is private: give the Space a secret HF_TOKEN" in capsys.readouterr().out


def test_a_folder_without_a_demo_is_refused(tmp_path, hub):
    with pytest.raises(SystemExit, match="must hold app.py, found none in .* Give --space_dir."):
        push(tmp_path)
    assert not hub.requests


@pytest.fixture
def page(tmp_path):
    """What web/build_page.py builds, in short; beside it are clips that are no part of it."""
    (tmp_path / "page" / "sounds").mkdir(parents=True)
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "other.ogg").write_bytes(b"0")
    for name in ("index.html", "model.onnx.gzip", "sounds/cat.ogg", ".hidden"):
        (tmp_path / "page" / name).write_bytes(b"0")
    (tmp_path / "page" / "README.md").write_text("---\nsdk: static\napp_file: index.html\n---\n# Page\n")
    return tmp_path / "page"


def test_a_built_page_becomes_a_static_space_that_links_its_model(page, hub):
    push(page)
    repository = hub.repositories["spaces", "alice/demo"]
    files = set(repository.main.files) - {".gitattributes"}
    assert repository.sdk == "static"
    assert files == {"README.md", "index.html", "model.onnx.gzip", "sounds/cat.ogg"}
    assert yaml.safe_load(repository.main.files["README.md"].split(b"---")[1])["models"] == ["alice/hear"]


def test_a_link_in_a_built_page_that_leads_out_is_refused(page, hub, tmp_path):
    (page / "notes.txt").symlink_to(tmp_path / "sounds" / "other.ogg")
    with pytest.raises(SystemExit, match="Links must lead to visible files of their own folder"):
        push(page)
    assert not hub.requests


def test_the_demo_s_files_all_go_up(tmp_path):
    stage_space(SPACE, tmp_path / "staged", "alice/hear")
    files = {path.name for path in (tmp_path / "staged").iterdir()}
    assert files == {"model_id.txt", "sounds"} | {path.name for path in SPACE.iterdir() if path.name != "__pycache__"}
