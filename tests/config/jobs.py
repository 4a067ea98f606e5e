"""The settings of a job file that a test writes."""

from __future__ import annotations

from pathlib import Path

from cxrprep.config.settings import Settings, read_job


def settings_of(text: str, folder: Path) -> Settings:
    file = folder / "job.toml"
    file.write_bytes(text.encode())
    settings, read = read_job(file)
    read.raise_mistakes()
    return settings
