"""What is no classifier ends the commands that load one with a message that names it, whatever is wrong with it."""

import json

import pytest
from transformers import BertConfig, BertModel

import predict
import stream
from hear_hf import HEARFeatureExtractor, HEARForPreTraining
from helpers import small_model, write_tone

try:
    import export_onnx
except ImportError:  # of an extra that the oldest set does without
    export_onnx = None


def nowhere(folder):
    """No folder, and no name that the Hub takes."""


def empty(folder):
    folder.mkdir()


def broken_config(folder):
    small_model().save_pretrained(folder)
    (folder / "config.json").write_text("{")


def odd_config(folder):
    small_model().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": ["cat", "dog"]}))


def broken_weights(folder):
    small_model().save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")


def text_model(folder):
    BertModel(
        BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(folder)


def no_head(folder):
    HEARForPreTraining(small_model().config).save_pretrained(folder)


@pytest.mark.parametrize("command", [predict, stream, export_onnx])
@pytest.mark.parametrize(
    "make",
    [nowhere, empty, broken_config, odd_config, broken_weights, text_model, no_head],
    ids=lambda m: m.__name__,
)
def test_a_model_that_cannot_be_loaded_ends_the_command_with_its_name(command, make, tmp_path):
    if command is None:
        pytest.skip("needs `pip install hear_hf[onnx]`")
    make(tmp_path / "model")
    if (tmp_path / "model").is_dir():
        HEARFeatureExtractor().save_pretrained(tmp_path / "model")
    write_tone(tmp_path / "clip.wav", 300)
    argument = tmp_path / ("out" if command is export_onnx else "clip.wav")
    with pytest.raises(SystemExit) as end:
        command.main([str(tmp_path / "model"), str(argument)])
    assert f"{tmp_path}/model must be a" in str(end.value) and "Traceback" not in str(end.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [predict, stream])
def test_a_model_that_returns_tuples_ends_the_command_with_the_remedy(command, tmp_path):
    small_model(return_dict=False).save_pretrained(tmp_path)
    HEARFeatureExtractor().save_pretrained(tmp_path)
    write_tone(tmp_path / "clip.wav", 300)
    with pytest.raises(SystemExit, match="`return_dict` false. Set it to true"):
        command.main([str(tmp_path), str(tmp_path / "clip.wav")])
