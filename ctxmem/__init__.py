"""ctxmem: a context manager between applications and LLMs."""

__version__ = "0.1.0"
