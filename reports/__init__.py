"""Report formats, one file each: ``FILE``, the report's file name, and ``render(evidence)``."""
