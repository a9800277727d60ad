"""When two statements say the same: equal once folded, or nearly, with the same numbers and the same sign."""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

from ctxmem.memories.lexicon import stems

NEAR = 0.9
"""Share of the words of both that two statements must have in common."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_NEGATION = re.compile(r"\b(?:not|no|never|none|nor|without|cannot|stopped|quit)\b|n['’]t\b", re.IGNORECASE)


def digest(text: str, speaker: str) -> bytes:
    """16 bytes, equal for statements that differ in case, marks and white space only.

    >>> digest("I like  tea!", "Ann") == digest("i like tea", "ann") != digest("I like tea", "Bob")
    True
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    words = _WORD.findall(folded) or [folded.strip()]
    return blake2b(f"{speaker.casefold()}\0{' '.join(words)}".encode("utf-8", "replace"), digest_size=16).digest()


def near(one: str, other: str) -> bool:
    """Whether two statements of one speaker say the same in nearly the same words.

    >>> near("I adopted a small grey cat yesterday", "I adopted a small, grey cat yesterday!")
    True
    >>> near("The train leaves at 9:15", "The train leaves at 9:45")
    False
    >>> near("I do like it a lot", "I don't like it a lot")
    False
    """
    if sorted(_NUMBER.findall(one)) != sorted(_NUMBER.findall(other)):
        return False
    if bool(_NEGATION.search(one)) != bool(_NEGATION.search(other)):
        return False
    left, right = set(stems(one)), set(stems(other))
    return bool(left) and len(left & right) >= NEAR * len(left | right)
