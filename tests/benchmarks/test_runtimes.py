"""benchmarks/runtimes.py: its table, and a run of small models in all runtimes."""

import json

import pytest
import torch

pytest.importorskip("onnxscript", reason="it needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnx", reason="it needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxruntime", reason="it needs `pip install hear_hf[onnx]`")

import runtime_contestants
import runtimes
from harness import Result
from helpers import noise, small_model


def result(model: str, case: str, seconds: float) -> Result:
    numbers = {"threads": 1, "batch_size": 1, "audio_seconds": 1.0, "num_parameters": 1, "gflops": None}
    times = {"seconds_min": seconds, "seconds_median": seconds, "forward_seconds_min": seconds}
    rounds = {"seconds_by_round": [seconds], "forward_seconds_by_round": [seconds]}
    return Result(model, model.upper(), case, **numbers, peak_mib=None, num_runs=1, **times, **rounds)


def test_ratios_refer_to_the_original_beside_the_same_model_and_length():
    results = [result("original", "1 s", 0.02), result("original", "10 s", 0.4)]
    results += [result("onnx", "1 s", 0.01), result("onnx", "10 s", 0.1)]
    text = runtimes.markdown({"tiny": {"results": results, "mib": {"original": 200.4, "onnx": None}}}, [1, 10])
    assert text.splitlines() == [
        "| | tiny, 1 s | tiny, 10 s | tiny, MiB |",
        "|---|---|---|---|",
        "| ORIGINAL | 20 (1.00) | 400 (1.00) | 200 |",
        "| ONNX | 10 (0.50) | 100 (0.25) |  |",
    ]


def test_a_file_is_opened_once_for_each_length():
    opened = []

    def open_file(num_samples):
        opened.append(num_samples)
        return lambda inputs: inputs["input_values"].sum(axis=1)

    model = runtime_contestants.Exported(open_file)
    for num_samples in (300, 400, 300):
        clip = noise(num_samples)[None]
        torch.testing.assert_close(model(clip, torch.ones_like(clip)), clip.sum(1))
    assert opened == [300, 400]


def test_a_runtime_that_is_not_installed_is_left_out_with_what_installs_it(monkeypatch, capsys):
    missing = runtime_contestants.Library("hear_hf[mobile]", ("no_such_module.runtime",))
    monkeypatch.setitem(runtimes.RUNTIMES, "mobile", runtime_contestants.Runtime("Mobile", missing, None))
    monkeypatch.setitem(runtimes.RUNTIMES, "mobile_int8", runtime_contestants.Runtime("Mobile int8", missing, None))
    assert runtimes.installed(["mobile", "pytorch", "mobile_int8", "onnx"]) == ["pytorch", "onnx"]
    assert capsys.readouterr().out == 'Left out: Mobile; Mobile int8. They need: pip install "hear_hf[mobile]"\n'


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pytorch_packed", "executorch", "litert"])
@torch.no_grad()
def test_clips_of_a_fixed_length_get_their_logits(name, tmp_path):
    runtime = runtimes.RUNTIMES[name]
    if not runtime.library.is_installed():
        pytest.skip(f"it needs `pip install {runtime.library.install}`")
    model = small_model(num_hidden_layers=1)
    model.save_pretrained(tmp_path / "model")
    if runtime.library.export:
        runtime.library.export(model, tmp_path, [0.5], "")
    contestant, clip = runtime.contestant(tmp_path), noise(8000)
    logits = contestant.model.eval()(**contestant.inputs([clip.numpy()], "cpu", torch.float32))
    torch.testing.assert_close(logits, model(clip[None]).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_run_times_every_installed_runtime_and_leaves_a_record(tmp_path, capsys):
    small_model(num_hidden_layers=1).save_pretrained(tmp_path / "small")
    times = ["--seconds", "0.5", "--rounds", "1", "--turn_seconds", "0.01"]
    runtimes.main(["--models", str(tmp_path / "small"), "--output_dir", str(tmp_path / "out"), *times])
    installed = [name for name, runtime in runtimes.RUNTIMES.items() if runtime.library.is_installed()]
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text())["models"].values()
    assert [each["model"] for each in found["results"]] == ["original", *installed] == [*found["mib"]]
    assert all(each["seconds_min"] > 0 for each in found["results"]) and found["mib"]["original"] > 50
    assert (tmp_path / "out" / "results.md").read_text() in capsys.readouterr().out
