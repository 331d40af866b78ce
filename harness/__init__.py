"""A benchmark harness for the factuality of language models."""

__version__ = "0.1.0"
