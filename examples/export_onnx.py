"""Exports a HEAR classifier to ONNX, to run where there is no PyTorch: waveform and mask -> logits, in one graph.

    python examples/export_onnx.py runs/digits runs/digits_onnx --dtype int8 --calibration_data my_sounds
    python examples/run_onnx.py runs/digits_onnx/model_int8.onnx one.wav two.flac

Batch and length are free. The front end is part of the graph and always computes in float32.

| --dtype | file | what changes |
|---|---|---|
| float32 | model.onnx | nothing |
| float16 | model_float16.onnx | weights are stored in float16 and computed with in float32 |
| int8 | model_int8.onnx | the linear layers multiply 8-bit activations by 7-bit weights |

The integers' ranges are measured as the model runs, or, with --calibration_data, once now on that audio. Every file is
compared with PyTorch on ragged batches before it is put in place. Needs `pip install "hear_hf[onnx]"`.
"""

import argparse
import logging

import torch

from hear_hf.deployment.onnx_export import FILES, export


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="A folder, or a repository of the Hub, with a HEAR classifier.")
    parser.add_argument("output_dir", help="Folder to write to.")
    parser.add_argument("--dtype", nargs="+", choices=list(FILES), default=["float32"], help="Default: float32.")
    parser.add_argument("--calibration_data", help="Folder of audio files by which int8 finds its ranges.")
    parser.add_argument("--threads", type=int, help="CPU threads to check and to time with.")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    export(args.model, args.output_dir, args.dtype, args.calibration_data)


if __name__ == "__main__":
    main()
