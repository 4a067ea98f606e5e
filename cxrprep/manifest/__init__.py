"""Normalized Parquet tables under ``manifests/``, and what is made of them."""

from typing import Final

# What failed in the last run; absent when nothing did.
FAILURES_NAME: Final = "failures.parquet"
