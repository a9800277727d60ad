"""What a text is, as far as pruning must know: prose, a log, code or data. By its shape, never by a model."""

from __future__ import annotations

import re
from collections import Counter as Tally
from typing import Literal

Content = Literal["prose", "log", "code", "data"]

_SAMPLE = 20_000
_FENCED = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.M | re.S)
_DATA = re.compile(r"\s*(?:\{\s*[\"'}]|\[\s*(?:[\"\[{\]]|-?\d+\s*,)|<\?xml|<!DOCTYPE|<html)", re.I)
_LOG_LINE = re.compile(
    r"\W*(?:\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|[A-Z][a-z]{2}\s+\d{1,2}\s\d\d:\d\d|\b(?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL)\b"
    r"|\[\s*\d+\.\d+\]|(?:PASS|FAIL|ok|not ok)\b|\w(?=\S*::\S)\S*\s+(?:PASSED|FAILED|SKIPPED))"
)
_CODE_LINE = re.compile(
    r"\s*(?:\d+\s*[:|\t→]\s*)?"
    r"(?:(?:def|class|if|elif|else|for|while|try|except|with|async|function|func|fn|switch|case)\b.*[:{(,\\]\s*$"
    r"|(?:import|from|using|package|#include|#define|return|let|const|var)\s\S+(?:\s+(?:import|as|=)\s.*|;)?$"
    r"|[\w.\[\]'\"]+\s*[-+*/|&]?=\s*\S|[})\]]+[;,]?\s*$|//|/\*|@\w+\s*(?:\(.*)?$|(?!.*\{\w+\}\s*$).*[;{}]\s*$)"
)
_DIFF = re.compile(r"^(?:diff --git |@@ -\d)", re.M)
_CODE_SHARE = 0.3
_DIGITS = re.compile(r"\d+")
_MANY_LINES = 8
_SPEAKER = re.compile(r"[A-Z][\w.'’-]*(?: [A-Z][\w.'’-]*){0,3}:\s")


def kind(text: str) -> Content:
    r"""What the text is, judged on its first 20,000 characters outside of code fences.

    >>> kind("2024-01-01 12:00:00 INFO up\n2024-01-01 12:00:01 INFO ready")
    'log'
    >>> kind('{"a": [1, 2]}')
    'data'
    """
    sample = _FENCED.sub("", text[:_SAMPLE])
    lines = [line for line in sample.splitlines() if line.strip()]
    if not lines:
        return "prose"
    if _share(lines, _LOG_LINE) >= 0.5:
        return "log"
    if _DATA.match(sample) or sample.count('":') > 2 * len(lines):
        return "data"
    return "code" if _is_code(sample, lines) else "log" if _repetitive(lines) else "prose"


def _is_code(sample: str, lines: list[str]) -> bool:
    return bool(_DIFF.search(sample)) or (len(lines) > 1 and _share(lines, _CODE_LINE) >= _CODE_SHARE)


def _share(lines: list[str], pattern: re.Pattern[str]) -> float:
    return sum(1 for line in lines if pattern.match(line)) / len(lines)


def _repetitive(lines: list[str]) -> bool:
    """Whether most lines open like at least two others, numbers aside: the output of a tool at work.

    Who speaks in a transcript does not count: what is said after the name is prose.
    """
    openings = [" ".join(_DIGITS.sub("0", _SPEAKER.sub("", line)).split()[:2]) for line in lines]
    tally = Tally(openings)
    return len(lines) >= _MANY_LINES and sum(tally[opening] > 2 for opening in openings) > len(lines) / 2
