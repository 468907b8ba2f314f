"""Exports a HEAR classifier to ONNX, to run where there is no PyTorch: waveform and mask -> logits, in one graph.

    python examples/export_onnx.py runs/digits runs/digits_onnx --dtype int8 --calibration_data my_sounds
    python examples/run_onnx.py runs/digits_onnx/onnx/model_quantized.onnx one.wav two.flac

The files go to `onnx/` in that folder, under the names of the Hub that transformers.js looks for, and beside them what
it reads of the model: config.json and preprocessor_config.json. The folder may be the model's own.

Batch and length are free. The front end is part of the graph and always computes in float32.

| --dtype | file | what changes |
|---|---|---|
| float32 | model.onnx | nothing |
| float16 | model_fp16.onnx | weights are stored in float16 and computed with in float32 |
| int8 | model_quantized.onnx | the linear layers multiply 8-bit activations by 7-bit weights |

The integers' ranges are measured as the model runs, or, with --calibration_data, once now on that audio. Every file is
compared with PyTorch on ragged batches before it is put in place. Needs `pip install "hear_hf[onnx]"`.
"""

from pathlib import Path

from hear_hf.arguments import command_parser
from hear_hf.deployment.onnx_export import (
    ExportArguments,
    earlier_files,
    export_file,
    exported_files,
    measure_pytorch,
    prepare,
    table_head,
)
from hear_hf.deployment.onnx_graph import to_onnx


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(ExportArguments, __doc__)
    parser.add_argument("model", help="Export this HEAR classifier: a folder, or a repository of the Hub.")
    parser.add_argument("output_dir", help="Write to this folder, which is made if need be.")
    args, named = parser.parse_args_into_dataclasses(argv)

    folder = Path(named.output_dir)
    model, clips = prepare(args, named.model, folder)
    print(table_head())
    print(measure_pytorch(model).row("PyTorch"), flush=True)
    graph = to_onnx(model)
    for dtype in args.dtype:
        file = export_file(graph, dtype, model, folder, clips)
        print(file.row(dtype, exported_files(folder)[dtype]), flush=True)
    if earlier := earlier_files(folder):
        print(earlier)


if __name__ == "__main__":
    main()
