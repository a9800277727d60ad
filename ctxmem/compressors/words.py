"""What a single word tells without a model: whether it is a stop word, and how much it stands out.

English and the particles of Chinese and Japanese; words of other languages count as content words.
"""

from __future__ import annotations

PARTICLES = "的了是与也而及或被把这那之为并但很吗呢吧啊"
"""Chinese function characters that rarely stand inside a Japanese word."""

STOP = frozenset(PARTICLES) | frozenset(
    """
    a about above after again against all also although am an and any are as at be because been before being below
    between both but by can could did do does doing done down during each either else even ever few for from further
    get gets got had has have having he her here hers herself him himself his how however i if in into is it its
    itself just let like many may maybe me might mine more most much must my myself nor now of off oh ok on once only
    onto or other ought our ours ourselves out over own quite rather really same shall she should since so some such
    than that the their theirs them themselves then there therefore these they this those though through thus to too
    toward towards under until up upon us very was we well were what when where whether which while who whom whose
    why will with within would yeah yes yet you your yours yourself yourselves i'm i've i'd i'll it's that's there's
    we're we've we'll you're you've you'll they're they've he's she's what's let's who's here's
    """.split()  # noqa: SIM905 - a list of 200 strings hides the words
)


def stop(word: str) -> bool:
    """Whether the word carries next to nothing by itself; a run of hiragana (particles, endings) counts as one.

    >>> stop("The"), stop("treaty"), stop("から")
    (True, False, True)
    """
    return word.lower().replace("’", "'") in STOP or "\u3041" <= word[0] <= "\u309f"


def salience(word: str) -> float:
    """How much a word stands out: 2 with a digit, 1.5 with a capital, 1 for content, 0 for a stop word.

    Source: the weights measured for ctxmem (`bench`), not from a paper.

    >>> [salience(word) for word in ("1998", "Paris", "river", "the")]
    [2.0, 1.5, 1.0, 0.0]
    """
    if any(char.isdigit() for char in word):
        return 2.0
    if stop(word):
        return 0.0
    return 1.5 if word[0].isupper() else 1.0
