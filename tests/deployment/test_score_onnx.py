"""examples/score_onnx.py on clips whose labels are known, and what it refuses."""

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="the scoring needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxruntime", reason="the scoring needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxscript", reason="the scoring needs `pip install hear_hf[onnx]`")

import score_onnx
from hear_hf import HEARForAudioClassification
from hear_hf.deployment.onnx_scoring import Contestant, of_length, pytorch_contestant


@pytest.fixture(scope="module")
@torch.no_grad()
def tables(folder, model, waveforms):
    """Test clips with the labels that the model gives them, except one of eight; training clips with every label."""
    names = [model.config.id2label[i] for i in range(7)]
    logits = torch.cat([model(waveform[None]).logits for waveform in waveforms])
    labels = [names[i] for i in (*logits[:1].argmin(-1), *logits[1:].argmax(-1))]
    assert len(set(labels)) > 2
    for table, column in {"train": 2 * names, "test": labels}.items():
        rows = "".join(f"{i % 8}.wav,{label}\n" for i, label in enumerate(column))
        (folder / f"{table}.csv").write_text("audio,label\n" + rows)
    return folder


def arguments(folder, **changes):
    paths = {"model_name_or_path": "model", "onnx_dir": "model", "train_file": "train.csv", "test_file": "test.csv"}
    return [word for name, path in (paths | changes).items() for word in (f"--{name}", str(folder / path))]


def rows_of(output: str) -> list[dict[str, str]]:
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_each_type_is_scored_on_the_test_clips(tables, capsys):
    score_onnx.main(arguments(tables))
    rows = rows_of(capsys.readouterr().out)
    assert list(rows[0]) == ["", "MiB", "accuracy", "macro_f1", "as float32", "ms a clip"]
    assert [row[""] for row in rows] == [
        "PyTorch float32",
        "PyTorch bfloat16",
        "ONNX float32",
        "ONNX float16",
        "ONNX int8",
    ]
    float32 = [row for row in rows if row[""].endswith(" float32")]
    assert [row["accuracy"] for row in float32] == ["87.5", "87.5"]
    assert [row["as float32"] for row in float32] == ["100.0", "100.0"]
    assert float(rows[1]["MiB"]) < float(rows[0]["MiB"]) and float(rows[4]["MiB"]) < float(rows[2]["MiB"])


def test_a_program_is_scored_beside_pytorch_on_clips_of_its_length(tables, model, tmp_path, capsys):
    pytest.importorskip("executorch", reason="it needs `pip install hear_hf[executorch]`")
    from hear_hf.mobile.executorch_export import export_program

    program = export_program(model, 0.5, "float32", tmp_path)
    score_onnx.main(arguments(tables) + ["--onnx_dir", str(tmp_path)])
    rows = rows_of(capsys.readouterr().out)
    assert [row[""] for row in rows[2:]] == ["PyTorch float32, clips of 0.5 s", "ExecuTorch model_0.5s"]
    assert rows[3]["MiB"] == f"{program.mib:.1f}"
    for column in ("accuracy", "macro_f1", "as float32"):
        assert rows[2][column] == rows[3][column]


@pytest.mark.parametrize(("length", "expected"), [(2, [1, 2]), (3, [1, 2, 3]), (7, [1, 2, 3, 1, 2, 3, 1])])
def test_a_clip_is_repeated_or_cut_to_a_length(length, expected):
    contestant = of_length(length, Contestant("clip", lambda clip: clip, 0.0))
    np.testing.assert_array_equal(contestant.logits(np.array([[1, 2, 3]])), [expected])


def test_a_clip_that_a_type_labels_otherwise_is_counted(tables, model, monkeypatch, capsys):
    reference = pytorch_contestant(model, torch.float32)
    opposite = Contestant("opposite", lambda clip: -reference.logits(clip), 0.0)
    monkeypatch.setattr(score_onnx, "contestants", lambda model, onnx_dir: [reference, opposite])
    score_onnx.main(arguments(tables))
    first, second = rows_of(capsys.readouterr().out)
    assert (first["as float32"], second["as float32"]) == ("100.0", "0.0")
    assert (first["accuracy"], second["accuracy"]) == ("87.5", "12.5")


def test_the_model_is_loaded_once_and_stays_as_it_is(tables, model, monkeypatch):
    loaded, load = [], HEARForAudioClassification.from_pretrained

    def count(*args, **options):
        loaded.append(load(*args, **options))
        return loaded[-1]

    monkeypatch.setattr(HEARForAudioClassification, "from_pretrained", count)
    score_onnx.main(arguments(tables))
    ((scored, _),) = loaded
    assert scored.dtype == torch.float32
    for name, tensor in scored.state_dict().items():
        np.testing.assert_array_equal(tensor, model.state_dict()[name], err_msg=name)


def test_a_folder_without_exported_files_is_refused(tables):
    (tables / "older").mkdir()
    with pytest.raises(ValueError, match="must hold files of .*, found none in .*/older. Export first."):
        score_onnx.main(arguments(tables, onnx_dir="older"))
    (tables / "older" / "model_int8.onnx").write_text("an older one")
    with pytest.raises(ValueError, match="holds model_int8.onnx of an earlier version: today's are onnx/{model.onnx,"):
        score_onnx.main(arguments(tables, onnx_dir="older"))


def test_clips_with_other_labels_are_refused(tables):
    (tables / "other.csv").write_text((tables / "train.csv").read_text().replace("bee", "ape"))
    with pytest.raises(ValueError, match="must be those of the clips, found: 7 and 7, the first 'bee' and 'ape'"):
        score_onnx.main(arguments(tables, train_file="other.csv", test_file="other.csv"))
