"""`examples/finetune.py --lora_r` on a tiny model and tones: the trained, saved, resumed and merged adapter."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForAudioClassification, pipeline

import finetune
import hear_hf
import predict
from hear_hf.adapters import is_adapter, load_adapter
from hear_hf.arguments import parse_arguments
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.training.adapters import AdapterArguments
from hear_hf.training.classification import FineTuningArguments, ModelArguments, build_trainer
from helpers import SMALL, noise, write_tone

pytest.importorskip("peft", reason="adapters need the extra `peft`")


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Three classes of four clips, one folder a class."""
    folder = tmp_path_factory.mktemp("tones")
    for label, frequency in (("low", 200), ("middle", 1000), ("high", 5000)):
        for i in range(4):
            write_tone(folder / label / f"{i}.wav", frequency, 0.2 + 0.05 * i, seed=i)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small classifier of seven other labels, with its feature extractor."""
    folder = tmp_path_factory.mktemp("base")
    hear_hf.HEARForAudioClassification(hear_hf.HEARConfig(**SMALL)).save_pretrained(folder)
    hear_hf.HEARFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_reports(request, monkeypatch):
    if "reports" not in request.fixturenames:
        monkeypatch.setattr(finetune, "report_classifier", lambda *args: None)


@pytest.fixture
def reports():
    """Named by a test that reads the card."""


KEEP_ALL = ["--save_total_limit", 5, "--load_best_model_at_end", "False"]


def run(folder, tones, base, *arguments):
    given = {"output_dir": folder, "data_dir": tones, "model_name_or_path": base, "lora_r": 4,
             "num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "use_cpu": True,
             "disable_tqdm": True}  # fmt: skip
    words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    return finetune.main([*words, *map(str, arguments)])


def last_checkpoint(folder):
    return max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def clips():
    return torch.stack([noise(8000, i) for i in range(3)])


@torch.no_grad()
def logits(model):
    return model(input_values=clips()).logits


def test_what_is_reloaded_and_what_is_merged_is_what_was_trained(tones, base, tmp_path):
    dataset = load_labelled_audio(DataArguments(data_dir=str(tones)))
    training = FineTuningArguments(
        output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=4, learning_rate=1e-2,
        head_epochs=2, disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = build_trainer(
        dataset, training, ModelArguments(model_name_or_path=str(base)), None, AdapterArguments(lora_r=4)
    )
    trainer.train()
    trainer.save_model()
    expected = logits(trainer.model.eval())
    reloaded = load_adapter(tmp_path)
    torch.testing.assert_close(logits(reloaded), expected, rtol=0, atol=1e-6)
    assert reloaded.config.id2label == {0: "high", 1: "low", 2: "middle"}
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    trainer.merge_adapter()
    torch.testing.assert_close(logits(trainer.model.eval()), expected, rtol=0, atol=1e-5)


def test_the_base_model_stays_as_it_is_and_the_folder_is_small(tones, base, tmp_path):
    run(tmp_path, tones, base)
    assert is_adapter(tmp_path) and not (tmp_path / "model.safetensors").exists()
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert all("lora_" in name or ".classifier." in name for name in saved)
    assert sum("lora_A" in name for name in saved) == 19  # all linear layers below the head
    before = hear_hf.HEARForAudioClassification.from_pretrained(base).state_dict()
    after = load_adapter(tmp_path).get_base_model().state_dict()
    names = [name for name in before if name.startswith("hear.")]
    assert all(torch.equal(before[name], after.get(name, after.get(of_base(name)))) for name in names)


def of_base(name):
    layer, _, kind = name.rpartition(".")
    return f"{layer}.base_layer.{kind}"


def test_a_resumed_run_ends_with_the_adapter_of_an_uninterrupted_one(tones, base, tmp_path):
    run(tmp_path, tones, base, *KEEP_ALL)
    whole = load_file(tmp_path / "adapter_model.safetensors")
    shutil.rmtree(last_checkpoint(tmp_path))
    (tmp_path / "adapter_model.safetensors").unlink()
    run(tmp_path, tones, base, *KEEP_ALL)
    resumed = load_file(tmp_path / "adapter_model.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.allclose(whole[name], resumed[name], atol=1e-6) for name in whole)


def test_a_merged_run_leaves_a_whole_model_that_pipeline_loads(tones, base, tmp_path):
    options = ["--lora_target_modules", "q_proj", "v_proj", *KEEP_ALL]
    run(tmp_path, tones, base, "--merge_adapter", *options)
    assert not is_adapter(tmp_path)
    model = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert sorted(model.config.label2id) == ["high", "low", "middle"]
    adapter = load_adapter(last_checkpoint(tmp_path))
    torch.testing.assert_close(logits(model.eval()), logits(adapter), rtol=0, atol=1e-5)
    classifier = pipeline("audio-classification", model=str(tmp_path))
    assert len(classifier({"array": clips()[0].numpy(), "sampling_rate": 16_000})) == 3


def test_the_card_shows_how_to_load_the_adapter_and_predict_does(tones, base, reports, tmp_path, capsys):
    run(tmp_path, tones, base, "--num_train_epochs", 1)
    card = (tmp_path / "README.md").read_text()
    assert "PeftModel.from_pretrained" in card and str(tmp_path) not in card
    predict.main([str(tmp_path), str(tones / "low" / "1.wav")])
    shown = capsys.readouterr().out
    assert all(label in shown.splitlines()[-1] for label in ("low", "middle", "high"))


def test_random_weights_and_wrong_options_are_refused(tones, tmp_path):
    with pytest.raises(ValueError, match="needs a pretrained model to adapt, found random weights"):
        finetune.main(["--output_dir", str(tmp_path), "--data_dir", str(tones), "--lora_r", "4", "--use_cpu"])
    with pytest.raises(ValueError, match="`lora_r` must be at least 1, found: 0"):
        parse_arguments(AdapterArguments, ["--lora_r", "0"])
    with pytest.raises(ValueError, match="`merge_adapter` needs an adapter"):
        parse_arguments(AdapterArguments, ["--merge_adapter"])


def test_an_adapter_of_a_folder_is_not_trained_to_be_published(tones, base, tmp_path):
    dataset = load_labelled_audio(DataArguments(data_dir=str(tones)))
    training = FineTuningArguments(output_dir=str(tmp_path), push_to_hub=True, use_cpu=True)
    with pytest.raises(ValueError, match="needs a base model on the Hub, found: .*base.*--merge_adapter"):
        build_trainer(dataset, training, ModelArguments(str(base)), None, AdapterArguments(lora_r=4))
