"""Labels: published label tables and free-text reports, in one vocabulary."""
