"""cxrprep: fetch, prove, label and convert the public chest X-ray collections."""

__version__ = "0.1.0"
