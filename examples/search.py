"""Searches the tables of embed.py: what sounds like some examples, what is there twice, which clips to label first.

    python examples/search.py runs/index --like one.wav more_of_it/ --page hits.html
    python examples/search.py runs/index --duplicates
    python examples/search.py runs/index --num_clusters 50 --output_file label_these.csv

Where `faiss` is installed, it searches through an index of FAISS (`pip install faiss-cpu`).
"""

import logging
import sys
from pathlib import Path

from hear_hf.arguments import command_parser, on_one_line, printable
from hear_hf.evaluation.search import EmbeddingIndex, SearchArguments, search, write_csv
from hear_hf.evaluation.search_page import write_page


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(SearchArguments, __doc__)
    parser.add_argument("index", metavar="FOLDER", help="The folder of embed.py's tables.")
    args, named = parser.parse_args_into_dataclasses(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    try:
        groups = search(EmbeddingIndex.load(named.index, args.faiss_factory), args)
    except (OSError, ValueError) as error:
        sys.exit(printable(str(error)))
    for heading, hits in groups:
        print(on_one_line(heading))
        for hit in hits:
            found = f"{hit.path}  {hit.start:.1f} to {hit.end:.1f} s  {', '.join(hit.labels)}"
            print(f"  {hit.similarity:.3f}  {on_one_line(found)}")
    if not groups:
        print("Nothing was found.")
    if args.output_file:
        write_csv(groups, args.output_file)
    if args.page:
        write_page(f"Found in {Path(named.index).resolve().name}", groups, args.page)


if __name__ == "__main__":
    main()
