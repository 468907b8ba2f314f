"""The benchmark of search, on embeddings whose neighbours are known."""

import numpy as np
import pytest
from datasets import Dataset

import embed
import similarity
from hear_hf import HEARFeatureExtractor
from helpers import write_tone


def test_precision_counts_the_labels_of_the_nearest_rows_of_other_groups():
    angles = np.concatenate([np.linspace(0, 0.1, 6), np.linspace(1.5, 1.57, 6)])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = [0] * 6 + [1] * 6
    assert similarity.precision(vectors, labels, range(12)) == 1
    assert similarity.precision(vectors, labels, labels) == 0  # the nearest of other groups have other labels
    assert similarity.precision(vectors, [0, 1] * 6, range(12)) == pytest.approx(0.4)


def test_the_labels_are_those_of_the_embedded_tables(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    HEARFeatureExtractor().save_pretrained(tmp_path / "model")
    for i in range(12):
        write_tone(tmp_path / "sounds" / f"{i}.wav", (300, 3000)[i % 2], 0.3 + i / 100, seed=i)
    rows = [(f"sounds/{i}.wav", i % 2, i // 6) for i in range(12)]
    table = Dataset.from_dict(dict(zip(("audio", "label", "fold"), zip(*rows, strict=True), strict=True)))
    table.to_csv(tmp_path / "clips.csv")
    source = ["--train_file", str(tmp_path / "clips.csv")]
    embed.main(["--model_name_or_path", str(tmp_path / "model"), *source, "--output_dir", str(tmp_path / "index")])
    found = similarity.main([str(tmp_path / "index"), *source, "--group_column", "fold"])
    assert list(found.values()) == [1.0, pytest.approx(3 / 5)]  # of another fold only three have the label
    assert "100.0% of 12 clips" in capsys.readouterr().out
    table.select(range(11)).to_csv(tmp_path / "fewer.csv")
    with pytest.raises(SystemExit):
        similarity.main([str(tmp_path / "index"), "--train_file", str(tmp_path / "fewer.csv")])
    assert "must hold these 11 clips whole" in capsys.readouterr().err
