"""The benchmarks: their baseline is the original, and what they count and leave behind is what they say."""

import json
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    MobileNetV2Config,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)

import harness
import loading
import speed
from contestants import Contestant, HEARPretraining, LogMelCNN, extraction, padded, peer
from golden import FIXTURES, SMALL_QUANTIZER, names
from harness import Case, Result, Settings, Worker, counted_operations
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification, HEARQuantizerConfig
from helpers import SMALL, noise, samples_of
from original import OriginalHEAR, OriginalPretraining
from original_layout import CLASSIFIER
from report import table, with_ratio
from teacher_models import EfficientATConfig, EfficientATFeatureExtractor, EfficientATForAudioClassification

PUBLISHED_GMAC, PUBLISHED_PARAMETERS = 9.47, 15.1e6  # for 10 s (arXiv:2603.26098)
SMALL_TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 7,
}


@pytest.fixture
def original(model):
    """The baseline with the weights of `model`."""
    ours, baseline = model.state_dict(), OriginalHEAR(model.config).eval()
    pairs = CLASSIFIER.main.pairs(model.config.to_dict())
    baseline.load_state_dict({theirs: ours[name] for theirs, name in pairs})
    return baseline


@pytest.fixture
def small_contestants(monkeypatch):
    """Small models in place of HEAR and the original, for classification and for pretraining."""
    config, quantizer_config = HEARConfig(**SMALL | {"codebook_size": 64}), HEARQuantizerConfig(**SMALL_QUANTIZER)
    extract = extraction(HEARFeatureExtractor())
    builders = {
        "CLASSIFIERS": (
            lambda: Contestant(OriginalHEAR(config), padded),
            lambda: Contestant(HEARForAudioClassification(config), extract),
        ),
        "PRETRAINERS": (
            lambda: Contestant(OriginalPretraining(config, quantizer_config, 0.4), padded),
            lambda: Contestant(HEARPretraining(config, quantizer_config), extract),
        ),
    }
    for name, (baseline, ours) in builders.items():
        entries = {"original": ("HEAR, original", baseline), "hear": ("HEAR, hear_hf", ours)}
        monkeypatch.setattr(harness, name, entries)


@pytest.mark.parametrize("num_frames", [10, 30, 31, 54, 55, 120])
@torch.no_grad()
def test_the_baseline_agrees_with_hear_hf_to_1e_5(model, original, num_frames):
    clip = noise(samples_of(num_frames))[None]
    torch.testing.assert_close(original(clip), model(clip).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_baseline_agrees_with_the_original_s_own_outputs_to_1e_5(original):
    small = load_file(FIXTURES / "small.safetensors")
    clips = names(small, "small.hear.", "waveform")
    assert clips
    for name in clips:
        logits = original(small[f"{name}.waveform"].view(1, -1))
        torch.testing.assert_close(logits.flatten(), small[f"{name}.logits"].flatten(), rtol=0, atol=1e-5)


def macs(model: nn.Module) -> float:
    with torch.no_grad(), counted_operations() as counter:
        model.eval()(noise(160_000)[None])
    return counter.get_total_flops() / 2


def test_fvcore_s_rules_give_the_published_count_for_the_baseline():
    """One for each multiply-add, five for each value of a layer norm, none for fused attention.

    The fused attention is the task model's, over 500 frames. With fvcore 0.1.5 itself it comes to 9.4704.
    """
    model, norms = OriginalHEAR(HEARConfig(num_labels=50)), []
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda module, inputs, output: norms.append(5 * output.numel()))
    fused_attention = 2 * 500 * 500 * 384
    assert round((macs(model) + sum(norms) - fused_attention) / 1e9, 2) == PUBLISHED_GMAC
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(PUBLISHED_PARAMETERS, rel=1e-3)


def test_hear_hf_multiplies_and_adds_within_a_twentieth_of_the_published_count(full_model):
    assert macs(full_model) / 1e9 == pytest.approx(PUBLISHED_GMAC, rel=0.05)


@pytest.mark.parametrize(
    "contestant",
    [
        lambda: peer(ASTConfig(**SMALL_TRANSFORMER), ASTFeatureExtractor()),
        lambda: peer(
            Wav2Vec2Config(**SMALL_TRANSFORMER, num_conv_pos_embedding_groups=2, conv_dim=[8] * 7),
            Wav2Vec2FeatureExtractor(),
        ),
        lambda: Contestant(LogMelCNN(MobileNetV2Config(num_channels=1, depth_multiplier=0.25, num_labels=7)), padded),
    ],
    ids=["ast", "wav2vec2", "cnn"],
)
@torch.no_grad()
def test_peers_read_the_same_ragged_clips(contestant):
    contestant = contestant().to("cpu", torch.bfloat16)
    contestant.model.eval()
    with counted_operations() as counter:
        outputs = contestant.model(**contestant.inputs(Case.ragged(1, 3).clips(), "cpu", torch.bfloat16))
    assert getattr(outputs, "logits", outputs).shape == (3, 7)
    assert counter.get_total_flops() > 0


@pytest.mark.parametrize("mode", ["inference", "training", "pretraining"])
@pytest.mark.parametrize("name", ["original", "hear"])
def test_a_worker_times_each_mode_and_only_training_changes_weights(small_contestants, mode, name):
    worker = Worker(name, Settings(mode=mode, dtype="bfloat16", turn_seconds=0))
    before = [parameter.clone() for parameter in worker.model.parameters()]
    worker.prepare(Case(1, (1.0, 1.0, 0.7)))
    runs, _ = worker.turn()
    assert len(runs) == 1 and 0 < runs[0][1] <= runs[0][0]
    changed = any(not torch.equal(a, b) for a, b in zip(before, worker.model.parameters(), strict=True))
    assert changed == (mode != "inference")


def test_a_converted_efficientat_takes_the_place_of_the_cnn_and_hears_clips_as_long(tmp_path):
    EfficientATForAudioClassification(EfficientATConfig(width_mult=0.1)).save_pretrained(tmp_path / "mn01")
    EfficientATFeatureExtractor().save_pretrained(tmp_path / "mn01")
    settings = Settings(efficientat=tmp_path / "mn01")
    clips = Case(1, (1.0, 0.5)).clips()
    inputs = Worker("cnn", settings).contestant.inputs(clips, "cpu", torch.float32)
    assert settings.contestants["cnn"][0] == "EfficientAT mn01"
    assert inputs["attention_mask"].sum(-1).tolist() == [32_000, 16_000]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads and resets the peak in /proc, which Linux has")
def test_the_peak_of_memory_is_that_since_the_reset():
    memory = harness.Memory("cpu")
    large = np.ones(100 * harness.MIB // 8)
    assert 80 < memory.peak() < 150
    del large
    memory.reset()
    assert memory.peak() < 60


def test_a_ratio_refers_to_the_first_model_and_the_same_case():
    seconds = {("a", "1 s"): 0.5, ("b", "1 s"): 0.25, ("a", "6 s"): 3.0, ("b", "6 s"): 0.75}
    results = [
        Result(model, model.upper(), case, 1, 1, 1.0, 2_000_000, None, None, 1, least, least, least, [], [])
        for (model, case), least in seconds.items()
    ]
    assert table(results, 1, with_ratio(lambda r: r.seconds_min)).splitlines() == [
        "| model | parameters | 1 s | 6 s |",
        "|---|---|---|---|",
        "| A | 2.0 M | 0.5 (1.00) | 3 (1.00) |",
        "| B | 2.0 M | 0.25 (0.50) | 0.75 (0.25) |",
    ]


class PoolOfThisProcess:
    """Stands in for a pool of one process, which takes seconds to start."""

    def __init__(self, max_workers, context, initializer, arguments):
        initializer(*arguments)
        self.worker = harness._worker

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *arguments):
        harness._worker, future = self.worker, Future()
        future.set_result(function(*arguments))
        return future


@pytest.mark.parametrize("pool", [PoolOfThisProcess, pytest.param(ProcessPoolExecutor, marks=pytest.mark.slow)])
def test_a_quick_run_leaves_a_record_a_table_and_a_plot(tmp_path, monkeypatch, pool):
    monkeypatch.setattr(harness, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(harness, "_worker", None)
    speed.main(["--quick", "--seconds", "1", "--ragged_batch_size", "2", "--output_dir", str(tmp_path)])
    record = json.loads((tmp_path / "results.json").read_text())
    assert set(record) == {"date", "machine", "versions", "settings", "results"}
    assert [(r["model"], r["case"]) for r in record["results"]] == [
        (model, case) for case in ("1 s", "2 x 1 to 10 s") for model in ("original", "hear")
    ]
    for entry in record["results"]:
        assert 0 < entry["forward_seconds_min"] <= entry["seconds_min"] <= entry["seconds_median"]
        assert len(entry["seconds_by_round"]) == 2 <= entry["num_runs"]
        assert entry["num_parameters"] == pytest.approx(PUBLISHED_PARAMETERS, rel=1e-3)
    assert record["results"][0]["gflops"] == pytest.approx(1.4, abs=0.1) and record["results"][2]["gflops"] is None
    assert "| HEAR, hear_hf | 15.1 M |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "pretraining", "--models", "ast"], "must name models among original, hear, found: ast"),
        (["--threads", "0"], 'must be positive or "all", found: 0'),
        pytest.param(
            ["--device", "cuda"],
            "needs a GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        speed.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_loading_is_timed_in_a_fresh_process(tmp_path):
    HEARForAudioClassification(HEARConfig(**SMALL)).save_pretrained(tmp_path / "HEAR")
    HEARFeatureExtractor().save_pretrained(tmp_path / "HEAR")
    start = time.perf_counter()
    imported, loaded = loading.load("HEAR", tmp_path)
    elapsed = time.perf_counter() - start
    assert imported > loaded > 0  # what this process imported long ago
    assert elapsed / 2 < imported + loaded < elapsed
