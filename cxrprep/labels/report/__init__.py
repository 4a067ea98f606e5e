"""labels/report."""
