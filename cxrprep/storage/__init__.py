"""Local storage: atomic files, journals, locks, safe paths, archives and Parquet files."""
