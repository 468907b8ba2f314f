"""A Hub on the loopback interface for the tests of this folder, and a model that they publish."""

import json
import shutil

import pytest

from hear_hf import HEARFeatureExtractor
from hear_hf.sharing import checks as hub_checks
from hear_hf.sharing import endpoints, publication
from helpers import small_model
from local_hub import LocalHub, connect
from pushing import LABELS


@pytest.fixture(scope="module")
def hub():
    with LocalHub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def online(hub, monkeypatch, tmp_path):
    """The Hub is empty, and alice is logged in there."""
    hub.clear()
    connect(hub, monkeypatch, tmp_path)


@pytest.fixture(autouse=True)
def loads_elsewhere(monkeypatch, request):
    """Records which loads in other processes were asked for; they run only in tests that name `real_loads`."""
    asked = []
    if "real_loads" not in request.fixturenames:
        monkeypatch.setattr(hub_checks, "compare", lambda models, *place: asked.append(place))
        for module in (publication, endpoints):
            monkeypatch.setattr(module, "compare", hub_checks.compare)
    return asked


@pytest.fixture
def real_loads():
    """Named by a test that loads models in other processes."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "run"
    model = small_model(id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)})
    model.save_pretrained(folder, max_shard_size="200KB")
    HEARFeatureExtractor().save_pretrained(folder)
    (folder / "test_results.json").write_text(json.dumps({"test_accuracy": 0.875, "test_loss": 0.4, "epoch": 3.0}))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")
