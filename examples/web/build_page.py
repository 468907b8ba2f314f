"""Builds a web page that names sounds in the visitor's browser: a folder for any web server or a static Space.

    python examples/web/build_page.py --model_name_or_path checkpoints/hear-tiny --output_dir runs/web
    python -m http.server --directory runs/web

Needs `pip install "hear_hf[onnx]"`, and npm to fetch the runtime, in the version of package-lock.json.
"""

import gzip
import hashlib
import json
import logging
import shutil
import subprocess
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from hear_hf.arguments import option, parse_arguments
from hear_hf.deployment.onnx_dtypes import DTYPES
from hear_hf.deployment.onnx_export import export_file, exported_files
from hear_hf.deployment.onnx_graph import to_onnx
from hear_hf.deployment.onnx_session import open_session
from hear_hf.exports import load_classifier
from hear_hf.sharing.links import check_link
from hear_hf.sharing.upload import SharingError

HERE = Path(__file__).parent
SOURCES = ("index.html", "style.css", "README.md", *(path.name for path in HERE.glob("*.js")))
PACKAGES = ("package.json", "package-lock.json")
RUNTIME = Path("node_modules", "onnxruntime-web", "dist")
LICENCES = "LICEN[CS]E*"
NOT_KEPT = ("README.md", LICENCES, "service_worker.js", "files.js")  # what the service worker does not keep


@dataclass
class PageArguments:
    """What to build."""

    model_name_or_path: str = option(help="Run this HEAR classifier: a folder, or a repository of the Hub.")
    output_dir: Path = option(help="Write the page to this folder, which is made if need be.")
    dtype: str = option(default="int8", metadata={"choices": DTYPES}, help="Run the model in this type.")
    sounds_dir: Path = option(default=HERE.with_name("sounds"), help="Offer the .ogg files of this folder to try.")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(PageArguments, argv, __doc__)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with TemporaryDirectory() as temporary:
        page, scratch = Path(temporary, "page"), Path(temporary, "scratch")
        page.mkdir()
        scratch.mkdir()
        for name in SOURCES:
            shutil.copy(HERE / name, page)
        add_runtime(page, scratch)
        add_model(page, scratch, args)
        list_files(page)
        shutil.copytree(page, args.output_dir, dirs_exist_ok=True)
        size = sum(path.stat().st_size for path in page.rglob("*") if path.is_file())
    print(f"The page is in {args.output_dir}, {size / 1e6:.1f} MB. To look at it:")
    print(f"python -m http.server --bind 127.0.0.1 --directory {args.output_dir}")


def add_runtime(page: Path, scratch: Path) -> None:
    """Fetches ONNX Runtime Web, in the locked version and by its checksum, and adds what the page needs of it."""
    for name in PACKAGES:
        shutil.copy(HERE / name, scratch)
    if not (npm := shutil.which("npm")):
        raise SystemExit("npm must fetch the page's runtime, found none: install Node.js, https://nodejs.org")
    if subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=scratch).returncode:
        raise SystemExit("npm must fetch the page's runtime, found that it failed: its message is above.")
    shutil.copy(scratch / RUNTIME / "ort.wasm.bundle.min.mjs", page / "runtime.mjs")
    compress(scratch / RUNTIME / "ort-wasm-simd-threaded.wasm", page / "runtime.wasm.gzip")


def add_model(page: Path, scratch: Path, args: PageArguments) -> None:
    """Exports the model, and adds it with what the page must know of it and clips to try it on."""
    model = load_classifier(args.model_name_or_path)
    if model.config.problem_type == "regression":
        raise SystemExit("The model must score labels, found a regression.")
    export_file(to_onnx(model), args.dtype, model, scratch)
    graph = exported_files(scratch)[args.dtype]
    compress(graph, page / "model.onnx.gzip")

    copy_own(Path(args.model_name_or_path), LICENCES, page)
    sounds = copy_own(args.sounds_dir, "*.ogg", page / "sounds")
    stated = open_session(graph).get_modelmeta().custom_metadata_map
    about = {
        "name": stated["model"],
        "labels": json.loads(stated["labels"]),
        "sampling_rate": int(stated["sampling_rate"]),
        "problem_type": stated["problem_type"],
        "examples": [f"sounds/{path.name}" for path in sounds],
    }
    (page / "model.json").write_text(json.dumps(about), encoding="utf-8")


def copy_own(folder: Path, pattern: str, target: Path) -> list[Path]:
    """Copies files of a folder, but none that a link would take from elsewhere to the page, and lists them."""
    target.mkdir(exist_ok=True)
    paths = sorted(folder.glob(pattern))
    for path in paths:
        try:
            check_link(path, folder)
        except SharingError as error:
            raise SystemExit(str(error)) from error
        shutil.copy(path, target)
    return paths


def compress(source: Path, target: Path) -> None:
    """Compresses a file, as many servers would not; not as .gz, which some of them unpack on the way."""
    target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))


def list_files(page: Path) -> None:
    """Writes the list of what the service worker keeps; its version changes with any of the files."""
    names = sorted(path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file())
    kept = [name for name in names if not any(fnmatch(name, pattern) for pattern in NOT_KEPT)]
    version = hashlib.sha256(b"".join((page / name).read_bytes() for name in kept)).hexdigest()[:16]
    lines = f'self.VERSION = "hear-{version}";\nself.FILES = {json.dumps(["./", *kept])};\n'
    (page / "files.js").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
