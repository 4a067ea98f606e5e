"""The record of a folder: what it holds (``cxrprep.lock``) and a row per file (``cxrprep.files.parquet``)."""
