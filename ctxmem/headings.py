"""What a passage goes by: its heading, folded so that it is found in what others say."""

from __future__ import annotations

import re

_LONGEST = 8  # words
_SHORTEST = 3  # characters
_ASIDE = re.compile(r"\s*\([^)]*\)")
_WORD = re.compile(r"\w+")


def folded(text: str) -> str:
    """The words in lower case between single spaces, one at each end.

    >>> folded("Tim Kaine, born 1958")
    ' tim kaine born 1958 '
    """
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def name(heading: str) -> str:
    """The heading folded, without what stands in brackets; empty when it is too short or reads like speech.

    >>> name("Alien (soundtrack)")
    'alien'
    """
    found = folded(_ASIDE.sub("", heading)).strip()
    return found if len(found) >= _SHORTEST and found.count(" ") < _LONGEST else ""
