"""The paper's other figures and tables: each is a few runs with one thing changed, side by side."""

from harness.ablations.engine import Study, Written, links, prepare, write

__all__ = ["Study", "Written", "links", "prepare", "write"]
