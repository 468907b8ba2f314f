r"""Embeds clips, or windows of long recordings, with a HEAR: parquet tables of path, start, end, embedding and labels.

    python examples/embed.py --model_name_or_path checkpoints/hear-tiny --data_dir my_sounds --output_dir runs/index
    python examples/embed.py --model_name_or_path checkpoints/hear-tiny --data_dir my_recordings \
        --output_dir runs/index --window_seconds 5 --num_proc 4
    python examples/search.py runs/index --like one.wav

The same command given again continues after the last complete table. Clips that cannot be read are named and counted.
"""

import logging
from pathlib import Path

from hear_hf.arguments import parse_arguments
from hear_hf.data.unlabelled import UnlabelledAudioArguments, load_whole_source
from hear_hf.evaluation.clip_embedder import EmbeddingArguments
from hear_hf.evaluation.embedding_tables import embed, summary


def main(argv: list[str] | None = None) -> list[Path]:
    args, data_args = parse_arguments((EmbeddingArguments, UnlabelledAudioArguments), argv, __doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    paths = embed(load_whole_source(data_args), args, data_args.max_unusable_share)
    print(summary(paths))
    print(f"Next: python examples/search.py {args.output_dir} --like CLIP")
    return paths


if __name__ == "__main__":
    main()
