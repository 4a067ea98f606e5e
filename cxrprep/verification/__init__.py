"""Verification of a folder: bytes, images and tables."""
