"""Decodes audio: copies of the files of this name in `hear_hf/data`, for where the package is not installed."""
