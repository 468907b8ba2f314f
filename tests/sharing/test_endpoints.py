"""`push_to_hub.py --endpoint` against a Hub on the loopback interface, and the published handler as the endpoints call
it."""

import base64
import importlib.util
import io
import json
import re
import shutil
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import HfApi, InferenceClient
from transformers import HubertConfig, HubertForSequenceClassification, Wav2Vec2FeatureExtractor

from hear_hf import HEARFeatureExtractor
from hear_hf.sharing import checks, endpoints, publication
from helpers import noise, small_model
from local_hub import connect
from pushing import LABELS, REPOSITORY, edit, push, refused

ROOT = Path(__file__).parents[2]
RATE = 16_000
COMPARE = checks.compare


def wav(clip, rate=RATE, kind="WAV"):
    file = io.BytesIO()
    soundfile.write(file, np.asarray(clip), rate, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return file.getvalue()


CLIP = wav(noise(RATE))


def load_handler(folder, monkeypatch):
    """What huggingface-inference-toolkit does: the folder first on the path, the file under this name, its class."""
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "audio"]:  # the Space's
        monkeypatch.delitem(sys.modules, name)
    spec = importlib.util.spec_from_file_location("handler.EndpointHandler", Path(folder) / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert Path(sys.modules["audio.visitors"].__file__).is_relative_to(folder)
    return module, module.EndpointHandler(str(folder))


@pytest.fixture(scope="module")
def downloaded(saved, hub, tmp_path_factory):
    """A copy of the published repository, made by somebody else."""
    home = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as monkeypatch:
        connect(hub, monkeypatch, home)
        for module in (publication, endpoints):
            monkeypatch.setattr(module, "compare", lambda *_: None)
        monkeypatch.setattr(checks, "compare", lambda *_: None)
        push(saved, "--endpoint")
        return HfApi(endpoint=hub.url, token="hf_bob").snapshot_download("alice/hear", local_dir=home / "copy")


@pytest.fixture
def module(downloaded, monkeypatch):
    return load_handler(downloaded, monkeypatch)


@pytest.fixture
def handler(module):
    return module[1]


def expected(function=lambda logits: logits.softmax(-1)):
    with torch.no_grad():
        scores = function(small_model()(noise(RATE)[None]).logits[0])
    best = scores.argsort(descending=True).tolist()
    return [(LABELS[index], pytest.approx(float(scores[index]), abs=1e-6)) for index in best]


def pairs(answer):
    return [(one["label"], one["score"]) for one in answer]


def test_the_handler_its_reader_and_its_packages_go_up_beside_the_weights(folder, hub, loads_elsewhere, capsys):
    (folder / "handler.py").write_text("mine")
    push(folder, "--endpoint")
    files = hub.repositories[REPOSITORY].main.files
    readers = {f"audio/{name}" for name in ("__init__.py", "containers.py", "decoding.py", "visitors.py")}
    assert {"handler.py", "requirements.txt", "config.json", *readers} <= set(files)
    assert files["audio/decoding.py"] == (checks.PACKAGE / "data" / "decoding.py").read_bytes()
    assert files["handler.py"] == (endpoints.TEMPLATES / "handler.py").read_bytes()
    assert re.search(r"handler.py +--endpoint writes its own", capsys.readouterr().out.partition("Kept back:")[2])


def test_a_copy_of_a_repository_with_a_handler_can_be_published_again(downloaded, hub):
    push(downloaded, to="alice/again")
    assert not {"handler.py", "audio/decoding.py"} & set(hub.repositories["models", "alice/again"].main.files)
    push(downloaded, "--endpoint", to="alice/again")
    files = hub.repositories["models", "alice/again"].main.files
    assert files["handler.py"] == (Path(downloaded) / "handler.py").read_bytes()


def test_the_repository_s_own_code_serves_the_same_where_the_package_is_absent(folder, monkeypatch, capsys):
    for module in (publication, endpoints):
        monkeypatch.setattr(module, "compare", COMPARE)
    push(folder, "--endpoint")  # checks so, before the upload and after it
    assert "The downloaded model gives the same outputs." in capsys.readouterr().out


def test_a_handler_of_other_scores_keeps_the_model_back(folder, hub, monkeypatch):
    monkeypatch.setattr(endpoints, "compare", COMPARE)
    monkeypatch.setattr(checks, "outputs_elsewhere", lambda *_: [np.full(len(LABELS), 0.5, np.float32)])
    assert "must give the same outputs" in refused(folder, "--endpoint")
    assert not hub.requests


def test_only_classifiers_of_clips_that_are_whole_are_served(tmp_path, hub):
    small_model().hear.save_pretrained(tmp_path / "run")
    HEARFeatureExtractor().save_pretrained(tmp_path / "run")
    assert "classifies clips, found: HEARModel" in refused(tmp_path / "run", "--endpoint")
    assert not hub.requests


def test_the_packages_are_pinned_as_those_of_the_space():
    ours = (endpoints.TEMPLATES / "requirements.txt").read_text(encoding="utf-8").splitlines()
    space = (ROOT / "examples" / "space" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line for line in ours if not line.startswith("#")}
    assert pinned == {line for line in space if not line.startswith(("#", "matplotlib"))} and len(pinned) > 5


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_a_file_s_bytes_get_the_likeliest_five_labels(handler, kind):
    answer = handler({"inputs": wav(noise(RATE), kind=kind)})
    assert len(answer) == 5 and json.loads(json.dumps(answer)) == answer
    if kind == "WAV":
        assert pairs(answer) == expected()[:5]


def test_base64_in_json_is_scored_as_its_parameters_say(handler):
    request = {"inputs": base64.b64encode(CLIP).decode()}
    assert pairs(handler(request | {"parameters": {"top_k": 2}})) == expected()[:2]
    for name, function in {"sigmoid": torch.sigmoid, "none": lambda logits: logits}.items():
        answer = handler(request | {"parameters": {"top_k": 99, "function_to_apply": name}})
        assert pairs(answer) == expected(function)
    assert handler(request | {"parameters": {"top_k": None}}) == handler(request) == handler({"inputs": CLIP})


def test_labels_that_exclude_no_other_score_apart(downloaded, tmp_path, monkeypatch):
    folder = shutil.copytree(downloaded, tmp_path / "copy")
    edit(folder, problem_type="multi_label_classification")
    _, handler = load_handler(folder, monkeypatch)
    assert pairs(handler({"inputs": CLIP})) == expected(torch.sigmoid)[:5]


def test_another_classifier_of_transformers_is_served_too(tmp_path, hub, monkeypatch):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (32, 32), "conv_kernel": (10, 3), "conv_stride": (5, 2)}
    config = HubertConfig(**sizes, **convolutions, num_conv_pos_embedding_groups=2, num_labels=3)
    HubertForSequenceClassification(config).save_pretrained(tmp_path / "hubert")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "hubert")
    push(tmp_path / "hubert", "--endpoint")
    copy = HfApi(endpoint=hub.url).snapshot_download("alice/hear", local_dir=tmp_path / "copy")
    _, handler = load_handler(copy, monkeypatch)
    assert {one["label"] for one in handler({"inputs": CLIP})} == {"LABEL_0", "LABEL_1", "LABEL_2"}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"RIFF", "must hold `inputs`"),
        ({}, "must hold `inputs`"),
        ({"inputs": b""}, "The clip must be audio"),
        ({"inputs": b"RIFF, but no more"}, "The clip must be audio"),
        ({"inputs": CLIP[:40]}, "The clip must"),
        ({"inputs": "/etc/passwd"}, "must be an audio file in base64"),
        ({"inputs": "https://example.org/clip.wav"}, "must be an audio file in base64"),
        ({"inputs": "clip"}, "The clip must be audio"),  # base64 of three bytes
        ({"inputs": "ä"}, "must be an audio file in base64"),
        ({"inputs": [0.1, 0.2]}, "found: list"),
        ({"inputs": None}, "found: NoneType"),
        ({"inputs": wav(np.zeros(RATE))}, "silence"),
        ({"inputs": wav(noise(100))}, "at least 0.1 s"),
        ({"inputs": wav(np.full(RATE, np.nan))}, "finite samples"),
        ({"inputs": wav(np.full(601 * 1_000, 0.1), 1_000)}, "at most 10 minutes"),
        ({"inputs": CLIP, "parameters": [5]}, "may hold `top_k` and `function_to_apply`"),
        ({"inputs": CLIP, "parameters": {"topk": 5}}, "may hold `top_k` and `function_to_apply`"),
        ({"inputs": CLIP, "parameters": {"top_k": 0}}, "at least 1, found: 0"),
        ({"inputs": CLIP, "parameters": {"top_k": True}}, "at least 1, found: True"),
        ({"inputs": CLIP, "parameters": {"top_k": "5"}}, "at least 1, found: '5'"),
        ({"inputs": CLIP, "parameters": {"function_to_apply": "relu"}}, "softmax, sigmoid, none, found: 'relu'"),
        ({"inputs": CLIP, "parameters": {"function_to_apply": ["none"]}}, "softmax, sigmoid, none"),
    ],
)
def test_nonsense_is_refused_in_one_line_without_a_path_of_the_server(handler, request_, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        handler(request_)
    assert "\n" not in str(refusal.value) and "/tmp" not in str(refusal.value) and len(str(refusal.value)) < 1000


def test_a_clip_of_too_many_bytes_is_refused_before_it_is_decoded(module, monkeypatch):
    code, handler = module
    monkeypatch.setattr(code, "MAX_BYTES", 1000)
    monkeypatch.setattr(code, "read_clip", lambda *_: pytest.fail("decoded"))
    for inputs in (CLIP, base64.b64encode(CLIP).decode(), "=" * 10_000):
        with pytest.raises(ValueError, match="at most 0 MB"):
            handler({"inputs": inputs})


def test_no_clip_is_left_on_the_endpoint(handler, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    handler({"inputs": CLIP})
    with pytest.raises(ValueError, match="silence"):
        handler({"inputs": wav(np.zeros(RATE))})
    assert not [*(tmp_path / "temporary").iterdir()]


@pytest.fixture
def server(handler):
    """The web server of huggingface-inference-toolkit, as far as audio goes: its address."""

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_json = self.headers["Content-Type"].startswith("application/json")
            status = 200
            try:
                request = json.loads(body) if is_json else {"inputs": body}
                if "parameters" in request:
                    request["inputs"] = base64.b64decode(request["inputs"], validate=True)
                answer = handler(request)
            except Exception as error:
                status, answer = 400, {"error": str(error)}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_huggingface_hub_s_client_classifies(server, tmp_path):
    client = InferenceClient(server, token="hf_bob")
    (tmp_path / "clip.wav").write_bytes(CLIP)
    assert pairs(vars(one) for one in client.audio_classification(tmp_path / "clip.wav")) == expected()[:5]
    answer = client.audio_classification(CLIP, top_k=2, function_to_apply="sigmoid")
    assert pairs(vars(one) for one in answer) == expected(torch.sigmoid)[:2]
