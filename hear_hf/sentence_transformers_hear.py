"""What sentence-transformers reads in a saved folder: that `pooler_output` is a clip's embedding.

Left to itself it would pool the frames and drop the mask, which has another length: in a batch, the padding of a short
clip would then be part of its embedding.
"""

import json
from pathlib import Path
from typing import Any

FILES: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    ],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {"audio": {"method": "forward", "method_output_name": "pooler_output"}},
        "module_output_name": "sentence_embedding",
    },
}


def describe_embedding(folder: str | Path) -> None:
    """Writes the files into a model's folder, and leaves those that are there as they are."""
    for name, content in FILES.items():
        path = Path(folder, name)
        if not path.exists():
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
