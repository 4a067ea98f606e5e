"""One HTML page about a folder: counts, labels, people, images, provenance."""
