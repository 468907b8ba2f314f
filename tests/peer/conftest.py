"""Keeps the shared tests of Transformers off the network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
