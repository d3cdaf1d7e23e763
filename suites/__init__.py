"""Suites, one file each. The file's name is the suite's name in ``audit.toml``; it holds ``SUITE``."""
