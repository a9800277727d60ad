"""PENCIL at the level of messages: a scope that has ended leaves its answer, what led to it leaves the context.

Yang et al. 2025, "PENCIL: Long Thoughts with Short Memory" (arXiv 2503.14337), reduce `C [CALL] T [SEP] A [RETURN]` to
`C A`, and with a tail call `C [CALL] T [SEP] [CALL] T' [RETURN]` to `C [CALL] T'`. Here C, T and A are messages:
`marks` says where scopes begin and end, `frames` which are open, `fold` reduces a plan, `log` keeps a log of its own.
"""
