"""One definition of an embedding: the model's own outputs, against what each evaluation suite asks for and gets."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from hear_hf import HEARFeatureExtractor, HEARForPreTraining, HEARModelOutput
from hear_hf.evaluation import hear21, xares
from hear_hf.evaluation.embeddings import EmbeddingModel
from helpers import noise, save_wav2vec2

RATE = 16_000
ACCEPTED_RATES = [16_000, 22_050, 32_000, 44_100, 48_000]  # of HEAR 2021
WIDTH = 56


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    HEARFeatureExtractor().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_embeddings_are_the_model_s_own_outputs_and_the_scores_its_logits(model, folder):
    embedder = EmbeddingModel.from_pretrained(folder)
    clip = noise(30_000)[None]
    outputs, expected = embedder(clip), model.hear(clip)
    torch.testing.assert_close(outputs.pooler_output, expected.pooler_output, rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-6)
    assert outputs.pooler_output.shape == (1, embedder.clip_size) and embedder.clip_size == 3 * embedder.frame_size
    torch.testing.assert_close(embedder.scores(outputs), model(clip).logits.softmax(-1), rtol=0, atol=1e-6)
    assert embedder.frame_milliseconds == 20 and len(embedder.labels) == 7


def test_a_clip_has_the_same_embedding_alone_and_beside_a_longer_one(folder):
    embedder = EmbeddingModel.from_pretrained(folder)
    short, long = noise(4000).numpy(), noise(48_000, 1).numpy()
    together = embedder.read([long, short]).pooler_output[1]
    torch.testing.assert_close(together, embedder.read([short]).pooler_output[0], rtol=0, atol=1e-6)


def test_a_digest_tells_weights_apart_and_does_not_see_the_head(model, folder, tmp_path):
    first = EmbeddingModel.from_pretrained(folder).digest()
    with torch.no_grad():
        model.classifier.out_proj.bias.add_(1)
    extractor = HEARFeatureExtractor()
    assert EmbeddingModel(model, extractor).digest() == first == EmbeddingModel(model.hear, extractor).digest()
    with torch.no_grad():
        model.hear.task_model.position_embeddings[0, 0, 0] += 1e-3
    assert EmbeddingModel(model, extractor).digest() != first


def test_models_that_embed_no_clips_are_refused(config, tmp_path):
    save_wav2vec2(tmp_path / "wav2vec2")
    with pytest.raises(ValueError, match="must be a HEAR, which embeds clips, found: wav2vec2"):
        EmbeddingModel.from_pretrained(tmp_path / "wav2vec2")
    pretrained = HEARForPreTraining(config)
    pretrained.save_pretrained(tmp_path / "pretrained")
    HEARFeatureExtractor().save_pretrained(tmp_path / "pretrained")
    with pytest.raises(ValueError, match="must have a task model, which pretraining leaves out"):
        EmbeddingModel.from_pretrained(tmp_path / "pretrained")
    with pytest.raises(ValueError, match="must be a HEAR with a task model"):
        EmbeddingModel(pretrained, HEARFeatureExtractor())


@pytest.mark.parametrize("seconds", [1.07, 1.98, 2.74, 4.0, 7.3])
def test_hear_2021_gets_what_its_validator_asks_for(folder, seconds):
    """The rules of hearvalidator 2021.0.6, errors and warnings alike, on clips of its lengths and a longer one."""
    model = hear21.load_model(folder)
    assert isinstance(model, torch.nn.Module) and model.sample_rate in ACCEPTED_RATES
    assert type(model.scene_embedding_size) is int and type(model.timestamp_embedding_size) is int
    audio = 2 * torch.rand(2, int(seconds * model.sample_rate)) - 1
    embeddings, timestamps = hear21.get_timestamp_embeddings(audio, model)
    assert embeddings.dtype == torch.float32 and timestamps.ndim == 2
    assert embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size) and len(embeddings) == len(audio)
    steps = timestamps.diff()
    assert steps.max() <= 50 and (steps - steps.mean()).abs().max() <= 1
    assert 0 <= timestamps.min() <= steps.mean()
    assert 1000 * seconds - steps.mean() <= timestamps.max() <= 1000 * seconds
    scenes = hear21.get_scene_embeddings(audio, model)
    assert scenes.dtype == torch.float32 and scenes.shape == (2, model.scene_embedding_size)


def test_timestamps_do_not_drift_in_an_hour(folder, monkeypatch):
    model, an_hour = hear21.load_model(folder), HEARModelOutput(last_hidden_state=torch.zeros(1, 180_000, WIDTH))
    monkeypatch.setattr(hear21.HEAR2021Model, "forward", lambda self, audio: an_hour)
    _, timestamps = hear21.get_timestamp_embeddings(torch.zeros(1, 1), model)
    assert timestamps[0, -1] == 5 + 20 * 179_999


def test_a_timestamp_is_the_centre_of_what_its_frame_hears(folder):
    model = hear21.load_model(folder)
    silence = torch.zeros(1, 2 * RATE - 160)  # 200 spectrogram frames
    click = silence.clone()
    click[0, RATE] = 1.0  # at 1000 ms
    heard, unheard = (model.model.hear.spectrogram(audio, None)[0] for audio in (click, silence))
    loudness = (heard - unheard)[0].amax(-1).unflatten(0, (-1, 2)).amax(-1)  # of each frame
    _, timestamps = hear21.get_timestamp_embeddings(click, model)
    assert abs(timestamps[0, loudness.argmax()] - 1000) <= 20


def test_suites_take_the_checkpoint_from_a_variable_where_they_give_none(folder, monkeypatch):
    monkeypatch.delenv("HEAR_MODEL", raising=False)
    with pytest.raises(ValueError, match="named by the variable HEAR_MODEL"):
        hear21.load_model()
    monkeypatch.setenv("HEAR_MODEL", str(folder))
    assert hear21.load_model().digest() == xares.HEAREncoder().model.digest()


def test_x_ares_gets_what_its_checker_asks_for(folder):
    """The rules of xares 0.1.3, and that a file holds one name that ends in Encoder."""
    assert [name for name in dir(xares) if name.endswith("Encoder")] == ["HEAREncoder"]
    encoder = xares.HEAREncoder(str(folder))
    frames = encoder(torch.randn(2, 50_000))
    assert frames.shape == (2, 156, encoder.output_dim) and encoder.sampling_rate == RATE
    assert 50_000 / RATE * 1000 / frames.shape[1] == pytest.approx(encoder.hop_size_in_ms, rel=0.01)
    assert encoder(torch.randn(50_000)).shape == (1, 156, WIDTH)


def run_beside(packages, script, tmp_path, **variables):
    """Runs Python where packages are installed that do not fit beside ours with all that they ask for."""
    target = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, *packages]
    installed = subprocess.run(install, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"the package cannot be installed here: {installed.stderr[-200:]}")
    path = os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path} | variables
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()[-1]


X_ARES = """
from xares.audio_encoder_checker import check_audio_encoder
from xares.utils import attr_from_py_path

print(check_audio_encoder(attr_from_py_path("hear_hf/evaluation/xares.py", endswith="Encoder")()))
"""


@pytest.mark.slow
def test_the_checker_of_x_ares_accepts_the_encoder(folder, tmp_path):
    assert run_beside(["xares==0.1.3", "loguru", "tqdm"], X_ARES, tmp_path, HEAR_MODEL=str(folder)) == "True"


# torchaudio, which would resample, does not import beside a CPU build of torch.
MTEB = """
import json, os, sys, types

import hear_hf
import numpy as np
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer

sys.modules["torchaudio"] = types.ModuleType("torchaudio")
import mteb
from mteb.abstasks.classification import AbsTaskClassification
from mteb.models import SentenceTransformerEncoderWrapper

def tone(frequency, i):
    return 0.3 * np.sin(2 * np.pi * frequency * (1 + i / 100) * np.arange(8000 + 100 * i) / 16_000)

class Tones(AbsTaskClassification):
    metadata = mteb.TaskMetadata(
        name="Tones", description="", reference=None, dataset={"path": "tones/tones", "revision": "1"},
        type="AudioClassification", category="a2c", modalities=["audio"], eval_splits=["train"],
        eval_langs=["zxx-Zxxx"], main_score="accuracy", date=None, domains=None, task_subtypes=None, license=None,
        annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation="",
    )
    input_column_name, label_column_name, is_cross_validation = "audio", "label", True

    def load_data(self, **options):
        pairs = [(label, i) for label in (0, 1) for i in range(20)]
        audio = [{"array": tone((300, 3000)[label], i), "sampling_rate": 16_000} for label, i in pairs]
        rows = Dataset.from_dict({"audio": audio, "label": [label for label, _ in pairs]})
        self.dataset, self.data_loaded = DatasetDict({"train": rows}), True

folder = os.environ["HEAR_MODEL"]
model = SentenceTransformerEncoderWrapper(SentenceTransformer(folder, device="cpu"))
meta = model.mteb_model_meta
modalities = meta._detect_modalities_from_sbert_config(json.load(open(f"{folder}/sentence_bert_config.json")))
model.mteb_model_meta = meta.model_copy(update={"modalities": modalities})  # as of a model of the Hub
results = mteb.evaluate(model, [Tones()], encode_kwargs={"batch_size": 8}, cache=None, co2_tracker=False)
print(results.task_results[0].get_score())
"""


@pytest.mark.slow
def test_mteb_tells_low_tones_from_high_ones(folder, tmp_path):
    pytest.importorskip("sentence_transformers")
    packages = ["mteb==2.26.24", "polars", "polars-runtime-32", "pytrec_eval-terrier"]
    assert float(run_beside(packages, MTEB, tmp_path, HEAR_MODEL=str(folder))) == 1


def test_every_saved_folder_that_embeds_clips_says_so_to_sentence_transformers(model, config, tmp_path):
    for name, saved in {"classifier": model, "base": model.hear, "pretraining": HEARForPreTraining(config)}.items():
        saved.save_pretrained(tmp_path / name)
        assert (tmp_path / name / "modules.json").is_file() == (name != "pretraining")
    described = json.loads((tmp_path / "base" / "sentence_bert_config.json").read_text())
    assert described["modality_config"]["audio"]["method_output_name"] == "pooler_output"


def test_files_of_sentence_transformers_that_are_there_stay_as_they_are(model, tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "modules.json").read_text() == "[]"


def test_sentence_transformers_pads_without_a_trace(model, folder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert encoder.get_embedding_dimension() == 3 * WIDTH
    clips = [{"array": noise(length, length).numpy(), "sampling_rate": RATE} for length in (48_000, 4000, 20_000)]
    together, alone = encoder.encode(clips), np.stack([encoder.encode([clip])[0] for clip in clips])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    expected = EmbeddingModel.from_pretrained(folder).read([clip["array"] for clip in clips]).pooler_output
    np.testing.assert_allclose(together, expected.numpy(), rtol=0, atol=1e-6)


def test_a_model_that_sentence_transformers_saved_loads_again(folder, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    encoder.save(str(tmp_path / "saved"))
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    clip = {"array": noise(9000).numpy(), "sampling_rate": RATE}
    np.testing.assert_allclose(again.encode([clip]), encoder.encode([clip]), rtol=0, atol=1e-6)
