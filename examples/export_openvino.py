"""Exports a HEAR classifier to OpenVINO, for Intel's processors and others: waveform and mask -> logits, in one graph.

    python examples/export_openvino.py runs/digits runs/digits_openvino --dtype int8 --calibration_data my_sounds
    python examples/run_onnx.py runs/digits_openvino/openvino_model_qint8_quantized.xml one.wav two.flac

The files go to that folder under the names that Optimum Intel looks for, each .xml with its weights in a .bin, and
beside them config.json and preprocessor_config.json. The folder may be the model's own.

| --dtype | file | computes in |
|---|---|---|
| float32 | openvino_model.xml | float32 |
| float16 | openvino_model_fp16.xml | bfloat16 where the CPU can, else float32; weights are stored in float16 |
| int8 | openvino_model_qint8_quantized.xml | integers of 8 bits, whose ranges are measured on --calibration_data |

Batch and length are free, unless --seconds fixes the length, for clips one at a time. The front end is part of the
graph, and no integers in int8. Every file is compared with PyTorch before it is put in place. Needs
`pip install "hear_hf[openvino]"`.
"""

from pathlib import Path

from hear_hf.arguments import command_parser
from hear_hf.deployment.onnx_export import (
    TIMED_SECONDS,
    measure_pytorch,
    prepare,
    table_head,
)
from hear_hf.deployment.onnx_graph import to_onnx
from hear_hf.deployment.openvino_export import IRArguments, export_ir
from hear_hf.deployment.openvino_session import exported_irs


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(IRArguments, __doc__)
    parser.add_argument("model", help="Export this HEAR classifier: a folder, or a repository of the Hub.")
    parser.add_argument("output_dir", help="Write to this folder, which is made if need be.")
    args, named = parser.parse_args_into_dataclasses(argv)

    folder = Path(named.output_dir)
    model, clips = prepare(args, named.model, folder)
    seconds = args.seconds or TIMED_SECONDS
    print(table_head(seconds))
    print(measure_pytorch(model, seconds).row("PyTorch"), flush=True)
    graph = to_onnx(model)
    for dtype in args.dtype:
        file = export_ir(graph, dtype, model, folder, clips, args.seconds)
        print(file.row(dtype, exported_irs(folder)[dtype]), flush=True)


if __name__ == "__main__":
    main()
