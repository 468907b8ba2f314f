"""`examples/push_to_hub.py` as the tests call it."""

import json

import pytest
from huggingface_hub import ModelCard

import push_to_hub

LABELS = ["dog", "rain", "siren", "`tick`", "a: b # c", "---\nlicense: x", "<b>loud</b>|"]
REPOSITORY = ("models", "alice/hear")


def push(folder, *arguments, to="alice/hear"):
    push_to_hub.main([str(folder), to, *map(str, arguments)])


def refused(folder, *arguments, to="alice/hear"):
    """The message of a push that fails."""
    with pytest.raises(SystemExit) as failure:
        push(folder, *arguments, to=to)
    assert isinstance(failure.value.code, str)  # Python prints it and exits with 1
    return failure.value.code


def edit(folder, file="config.json", **changes):
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | changes))


def card_of(hub, kind="models", name="alice/hear"):
    return ModelCard(hub.repositories[kind, name].main.files["README.md"].decode())
