"""Manifests: normalized Parquet tables under ``manifests/``, statistics, cards and exports."""

from typing import Final

# What failed in the last run; absent when nothing did.
FAILURES_NAME: Final = "failures.parquet"
