"""HEAR on phones and small boards: export to ExecuTorch."""

from ..extras import require

require(__name__, "executorch", "executorch")
