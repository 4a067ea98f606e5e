"""Labelers of report text beside the rules: a language model behind an endpoint, CheXbert, other packages' own."""
