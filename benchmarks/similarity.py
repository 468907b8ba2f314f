"""How good a search is: of the clips that are nearest to a clip, the share that has its label.

    python examples/embed.py --model_name_or_path checkpoints/hear-tiny --train_file 'esc50/fold?.parquet' \\
        --output_dir runs/esc50
    python benchmarks/similarity.py runs/esc50 --train_file 'esc50/fold?.parquet' --group_column fold

The labels are those of the tables that were embedded, as whole clips. With a group, for example a fold, a second
figure counts only clips of other groups.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hear_hf.arguments import command_parser
from hear_hf.data.labelled import DataArguments, load_splits
from hear_hf.evaluation.search import EmbeddingIndex

TOP_K = 5


def precision(vectors: np.ndarray, labels: Sequence[Any], groups: Sequence[Any]) -> float:
    """The mean share of a row's label among the `TOP_K` nearest rows of other groups."""
    labels, groups, shares = np.asarray(labels), np.asarray(groups), []
    for vector, label, group in zip(vectors, labels, groups, strict=True):
        cosines = np.where(groups == group, -np.inf, vectors @ vector)
        shares.append(np.mean(labels[np.argsort(-cosines)[:TOP_K]] == label))
    return float(np.mean(shares))


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = command_parser(DataArguments, __doc__)
    parser.add_argument("index", metavar="FOLDER", help="The folder of embed.py's tables.")
    data_args, named = parser.parse_args_into_dataclasses(argv)
    index, clips = EmbeddingIndex.load(named.index), load_splits(data_args, seed=0)["train"]
    rows = index.rows["clip"][:]
    if len(set(rows)) != len(rows) or len(clips) != index.metadata["num_clips"]:
        parser.error(f"{named.index} must hold these {len(clips)} clips whole, found {len(rows)} embeddings")

    vectors, labels = index.vectors(), [clips["label"][row] for row in rows]
    found = {f"precision@{TOP_K}, each clip left out": precision(vectors, labels, rows)}
    if data_args.group_column:
        groups = [clips[data_args.group_column][row] for row in rows]
        found[f"precision@{TOP_K}, each {data_args.group_column} left out"] = precision(vectors, labels, groups)
    for name, value in found.items():
        print(f"{name}: {value:.1%} of {len(rows)} clips")
    return found


if __name__ == "__main__":
    main()
