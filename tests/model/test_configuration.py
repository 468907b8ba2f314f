"""HEARConfig: published size, refusals, round trips, and the fields that every Transformers config has."""

import json
import tracemalloc

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import Wav2Vec2Config

import hear_hf
from hear_hf import HEARConfig, HEARForAudioClassification, HEARQuantizerConfig
from hear_hf.configuration_hear import AUTO_MAP, MAX_PARAMETERS


def test_defaults_give_the_published_size():
    with torch.device("meta"):
        model = HEARForAudioClassification(HEARConfig(num_labels=50))
    assert model.num_parameters() == 15_097_394


def test_spec_augment_defaults_are_those_of_wav2vec2():
    ours, theirs = HEARConfig().to_dict(), Wav2Vec2Config().to_dict()
    names = {name for name in theirs if name.startswith("mask_")}
    assert len(names) == 6 and {name: ours[name] for name in names} == {name: theirs[name] for name in names}


def test_every_field_survives_a_round_trip(tmp_path, config):
    config.update({"mask_time_prob": 0.25, "apply_spec_augment": True, "sampling_rate": 32_000, "n_fft": 2048})
    config.save_pretrained(tmp_path)
    loaded = HEARConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict() | {"_name_or_path": loaded._name_or_path}


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"hidden_size": 50, "num_attention_heads": 4}, ["hidden_size=50", "num_attention_heads=4"]),
        ({"task_hidden_size": 50}, ["task_hidden_size=50", "task_num_attention_heads=4"]),
        ({"window_length": 30, "window_overlap": 30}, ["window_length=30", "window_overlap=30"]),
        ({"window_overlap": -1}, ["window_overlap=-1", "window_length=300"]),
        ({"n_fft": 512, "sampling_rate": 32_000}, ["n_fft=512", "sampling_rate=32000", "800 samples"]),
        ({"mask_feature_length": 49, "hidden_size": 48}, ["mask_feature_length=49", "hidden_size=48"]),
        ({"sampling_rate": 8_000}, ["16000", "8000"]),
        ({"sampling_rate": 22_050}, ["multiple of 200", "22050"]),
        ({"hidden_dropout": 1.5}, ["hidden_dropout", "1.5"]),
        ({"mask_time_prob": -0.1}, ["mask_time_prob", "-0.1"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", "0"]),
        ({"window_length": 0}, ["window_length", "0"]),
        ({"num_hidden_layers": 10**6}, ["num_hidden_layers", "1024", "1000000"]),
        ({"hidden_size": 4 * 10**9}, ["hidden_size", "4000000000"]),
        ({"num_mel_bins": 10**9}, ["num_mel_bins", "1024", "1000000000"]),
        ({"n_fft": 10**9}, ["n_fft", "65536", "1000000000"]),
        ({"sampling_rate": 16 * 10**9}, ["sampling_rate", "768000", "16000000000"]),
    ],
)
def test_an_impossible_combination_is_refused_and_named(fields, values):
    with pytest.raises(StrictDataclassError) as error:
        HEARConfig(**fields)
    message = f"{error.value} {error.value.__cause__}"
    assert all(value in message for value in values), message


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"hidden_size": 50}, "hidden_size=50"),
        ({"decoder_hidden_size": 50}, "decoder_hidden_size=50"),
        ({"decoder_num_hidden_layers": 0}, "`decoder_num_hidden_layers`"),
        ({"gumbel_temperature_decay": 1.5}, "`gumbel_temperature_decay`"),
        ({"teacher_hidden_size": 0}, "`teacher_hidden_size`"),
        ({"window_overlap": 300}, "window_overlap=300"),
    ],
)
def test_an_impossible_quantizer_is_refused_and_named(fields, value):
    with pytest.raises(StrictDataclassError) as error:
        HEARQuantizerConfig(**fields)
    assert value in f"{error.value} {error.value.__cause__}"


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"hidden_size": 48, "intermediate_size": 2**19}, ["`hidden_size`", "intermediate_size=524288", "16777216"]),
        ({"task_hidden_size": 48, "max_position_embeddings": 2**20}, ["max_position_embeddings=1048576"]),
        ({"classifier_proj_size": 2**15, "num_labels": 2**15}, ["`num_labels`", "classifier_proj_size=32768"]),
        ({"classifier_proj_size": None, "num_labels": 2**16}, ["task_hidden_size=384", "num_labels=65536"]),
        ({"num_hidden_layers": 1024, "hidden_size": 1024}, ["268435456 parameters", "num_hidden_layers=1024"]),
    ],
)
def test_sizes_whose_product_is_absurd_are_refused_by_name(fields, values):
    with pytest.raises(StrictDataclassError) as error:
        HEARConfig(**fields)
    message = f"{error.value} {error.value.__cause__}"
    assert all(value in message for value in values), message


def test_products_of_a_quantizer_are_bounded_too():
    for fields in ({"codebook_size": 2**20}, {"decoder_intermediate_size": 2**20}, {"teacher_hidden_size": 2**20}):
        with pytest.raises(StrictDataclassError) as error:
            HEARQuantizerConfig(**fields)
        assert f"{next(iter(fields))}=1048576" in f"{error.value} {error.value.__cause__}"


@pytest.mark.parametrize("config_class", [HEARConfig, HEARQuantizerConfig])
def test_millions_of_labels_are_refused_before_they_get_names(config_class):
    tracemalloc.start()
    with pytest.raises(ValueError, match="`num_labels` must be at most 65536, found: 3000000"):
        config_class(num_labels=3_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_a_model_ten_times_the_published_size_is_not_refused():
    config = HEARConfig(hidden_size=1152, intermediate_size=4608, task_hidden_size=1152, task_intermediate_size=4608)
    with torch.device("meta"):
        parameters = HEARForAudioClassification(config).num_parameters()
    assert 1e8 < parameters < MAX_PARAMETERS


@pytest.mark.parametrize(
    "field",
    [
        {"hidden_size": "384"},
        {"hidden_size": 384.0},
        {"hidden_act": 3},
        {"apply_spec_augment": "yes"},
        {"hidden_dropout": "0.1"},
        {"layer_norm_eps": None},
        {"false_alarm_rate": 1.5},
    ],
)
def test_a_value_of_the_wrong_type_is_refused(field):
    with pytest.raises(StrictDataclassError, match=next(iter(field))):
        HEARConfig(**field)


def test_whole_numbers_serve_as_shares():
    assert HEARConfig(hidden_dropout=0, mask_time_prob=1).hidden_dropout == 0


def test_lengths_follow_the_sampling_rate():
    config = HEARConfig(sampling_rate=32_000, n_fft=2048)
    assert (config.hop_length, config.win_length, config.inputs_to_logits_ratio) == (320, 800, 640)


def test_auto_map_names_every_class_whichever_saved_it(tmp_path, config):
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"] == AUTO_MAP
    assert all(path.rpartition(".")[2] in hear_hf.__all__ for path in AUTO_MAP.values())


def test_an_auto_map_of_the_caller_s_is_kept_beside_ours():
    config = HEARConfig(auto_map={"AutoModelForCTC": "mine.Model"})
    assert config.auto_map == AUTO_MAP | {"AutoModelForCTC": "mine.Model"}
    assert "AutoModelForCTC" not in AUTO_MAP


def test_id2label_sets_the_number_of_labels():
    config = HEARConfig(id2label={0: "rain", 1: "dog", 2: "bell"}, label2id={"rain": 0, "dog": 1, "bell": 2})
    assert config.num_labels == 3
    with torch.device("meta"):
        assert HEARForAudioClassification(config).classifier.out_proj.out_features == 3


def test_num_labels_makes_label_names():
    assert HEARConfig(num_labels=4).id2label == {i: f"LABEL_{i}" for i in range(4)}


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_the_problem_type_is_kept(tmp_path, problem_type):
    HEARConfig(problem_type=problem_type, num_labels=3).save_pretrained(tmp_path)
    assert HEARConfig.from_pretrained(tmp_path).problem_type == problem_type
