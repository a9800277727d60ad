"""What a statement settles: the key under which a later statement takes an earlier one's place.

Only what has one value at a time: a name, where somebody lives or works, an age, a favourite, a deadline; and whether
something is liked or done. Everything else may be true at once and is kept side by side. English patterns, no model:
a pattern that does not fit leaves a statement without a topic, and it is kept all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ATTRIBUTE = (
    r"(?:(?:full |first |last |middle |nick)?name|e-?mail(?: address)?|phone(?: number)?|(?:home |work )?address|"
    r"birthday|date of birth|age|job(?: title)?|title|role|employer|company|boss|manager|supervisor|budget|deadline|"
    r"due date|start date|end date|release date|launch date|time ?zone|hometown|home town|diet|weight|height|salary|"
    r"rent|pronouns|major|(?:current |target |daily |weekly |monthly |annual )[a-z]+)"
)
_CHANGED = r"(?:is now|(?:was|has been|has|got) (?:changed|moved|pushed|set) to|(?:changed|moved) to)"
_IS = rf"(?:{_CHANGED}|is)"
_VALUE = r"(?P<value>[^.;!?\n]{1,200})"
_NOW = r"(?:(?:now|currently|just|recently|finally|have|'ve|'m|am|will) ?)*"
_TAIL = re.compile(r"\b(?:any ?more|now|currently|again|really|so much|very much|a lot|these days|at all)\b[ ,]*$")
_NOT = (
    r"(?P<no>no longer|don't|do not|never|stopped|quit|gave up|can't stand|cannot stand|"
    r"hate|dislike|love|like|enjoy|adore)"
)
_MOVES = r"(?:changed?|moved?|set|push(?:ed)?)"
_LIVES = r"(?:live|living|moved|relocated|based|settled)(?: back)?(?: over)? (?:in|to|at)"
_WORKS = r"(?:work|working|started working|joined|employed)(?: at| for| by|(?= [a-z]+$))"
_FIRST = r"^(?:but |and |well,? |actually,? )?i (?:really |absolutely |just )?"

_RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("{key}", re.compile(rf"\b(?:my|our) (?P<key>favou?rite [a-z]+(?: [a-z]+)?) {_IS} {_VALUE}")),
    ("{key}", re.compile(rf"\bmy (?P<key>{_ATTRIBUTE}) {_IS} {_VALUE}")),
    ("{key}", re.compile(rf"\b(?:our|the) (?P<key>{_ATTRIBUTE}) {_CHANGED} {_VALUE}")),
    ("{key}", re.compile(rf"\b{_MOVES} (?:my|our|the) (?P<key>{_ATTRIBUTE}) to {_VALUE}")),
    ("name", re.compile(rf"\b(?:call me|i am called|i'm called|i go by) {_VALUE}")),
    ("live", re.compile(rf"\bi ?{_NOW}{_LIVES} {_VALUE}")),
    ("work", re.compile(rf"\bi ?{_NOW}{_WORKS} {_VALUE}")),
    ("age", re.compile(r"\bi(?: am|'m| just turned| turned) (?P<value>\d{1,3})(?: years old| now|$|,)")),
    ("likes {value}", re.compile(rf"{_FIRST}{_NOT} (?P<value>[^.;!?,\n]{{1,60}})$")),
)
_HABIT = re.compile(r"^(?:eating|eat|drinking|drink|to |doing|do |going to|playing|play|having|have) ?")
_ARTICLE = re.compile(r"^(?:the|a|an|my|some|any|any more) ")


@dataclass(frozen=True, slots=True)
class Topic:
    """What a statement settles.

    Attributes:
        key: of whom and what, such as `user:live`.
        value: to what, folded.
    """

    key: str
    value: str


def topic(sentence: str, speaker: str) -> Topic | None:
    """What a sentence settles about its speaker; None when nothing.

    >>> topic("I moved to Oslo in May.", "user")
    Topic(key='user:live', value='oslo')
    >>> topic("My favourite colour is green", "Ann").key, topic("I saw a dog.", "Ann")
    ('ann:favorite colour', None)
    """
    said = " ".join(sentence.casefold().replace("’", "'").split()).rstrip(".!;, ")
    for name, pattern in _RULES:
        if match := pattern.search(said):
            fields = match.groupdict()
            value = _folded(fields["value"])
            if name == "likes {value}":
                return Topic(f"{speaker.casefold()}:likes {value}", fields["no"])
            key = name.format(key=fields.get("key") or "").replace("favourite", "favorite")
            value = re.split(r" (?:in|since|last|this|next|because|and|but|with|when|where) |,", value)[0]
            return Topic(f"{speaker.casefold()}:{key}", value)
    return None


def _folded(value: str) -> str:
    return _ARTICLE.sub("", _HABIT.sub("", _TAIL.sub("", value).strip(" ,"))).strip()
