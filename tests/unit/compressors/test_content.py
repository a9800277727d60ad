"""What a text is, by its shape."""

from __future__ import annotations

import pytest

from ctxmem.compressors import content


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The treaty was signed in Paris.\n\nIt was broken a year later; nobody knew why.", "prose"),
        ("- buy milk\n- call Ann\n- go home", "prose"),
        ("[1] Smith et al. found that it holds.\n[2] Jones disagrees.", "prose"),
        ("Some prose first.\n```py\nx = 1\ny = 2\n```\nAnd after.", "prose"),
        ("Ann: hi (hello)\nBen: how are you?\nAnn: fine", "prose"),
        ("", "prose"),
        ("2024-01-01T00:00:00Z start\n2024-01-01T00:00:01Z stop", "log"),
        ("[INFO] up\n[ERROR] down\n  at main", "log"),
        ("tests/a.py::test_x PASSED\ntests/a.py::test_y FAILED", "log"),
        ("\n".join(f"Requirement already satisfied: package{i} (1.{i})" for i in range(9)), "log"),
        (
            "\n".join(
                f"Ann: {word} is here.\nBen: {word}, but why?"
                for word in ("one", "two", "six", "ten", "red", "far", "low")
            ),
            "prose",
        ),
        ("\n".join(f"Project Manager: {word} is next, or is it not?" for word in "abcdefghij"), "prose"),
        ("\n".join(f"Warning: line {i} of the file is empty" for i in range(9)), "log"),
        ('{"a": 1}', "data"),
        ("[1, 2, 3]", "data"),
        ('<?xml version="1.0"?><a/>', "data"),
        ('"a": 1, "b": 2, "c": {"d": 3}, "e": 4', "data"),
        ("import os\n\ndef f(x):\n    y = x + 1\n    return y", "code"),
        ("int main() {\n  int x = 1;\n  return x;\n}", "code"),
        ("diff --git a/x b/x\n@@ -1 +1 @@\n-a\n+b", "code"),
        ("1: import os\n2: x = 1\n3: y = 2", "code"),
    ],
)
def test_kind(text, kind):
    """Prose and logs are pruned, code and data are not."""
    assert content.kind(text) == kind
