"""Request bodies as the gateway splits them; see `ctxmem.wires.splice`."""

from ctxmem.wires.splice import MAX_DEPTH, MAX_MESSAGES, Body, check_depth, joined, quoted, split

__all__ = ["MAX_DEPTH", "MAX_MESSAGES", "Body", "check_depth", "joined", "quoted", "split"]
