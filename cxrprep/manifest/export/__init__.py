"""Exports of the manifest: one module per format."""
