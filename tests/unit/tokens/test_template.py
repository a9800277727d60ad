"""Chat templates."""

from __future__ import annotations

import pytest

from ctxmem.errors import InvalidInput, ModelError
from ctxmem.tokens.template import ChatTemplate

TEXTS = "{% for m in messages %}{{ m['role'] + ':' + m['content'] }};{% endfor %}"
PARTS = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content or [] %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}"
)


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": "<s>"})


def test_what_a_template_takes_is_found_by_trying():
    """One that joins strings takes texts; one that loops over parts takes both."""
    assert (template(TEXTS).takes_parts, template(TEXTS).takes_null) == (False, False)
    assert (template(PARTS).takes_parts, template(PARTS).takes_null) == (True, True)
    assert not template("{% for m in messages %}{{ m.content }}{% endfor %}").takes_parts  # would print the list


def test_content_gets_the_shape_the_template_takes():
    """Texts of parts one a line; nothing where nothing was said."""
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}]
    assert template(TEXTS).shape({"role": "user", "content": parts})["content"] == "a\nb"
    assert template(TEXTS).shape({"role": "assistant", "content": None})["content"] == ""
    assert template(PARTS).shape({"role": "user", "content": parts})["content"] == parts
    assert "content" not in template(PARTS).shape({"role": "assistant", "content": None})


@pytest.mark.parametrize(
    ("arguments", "expected"), [('{"a": 1}', {"a": 1}), ("", {}), ("{oops", "{oops"), ({"a": 1}, {"a": 1})]
)
def test_arguments_of_calls_become_objects(arguments, expected):
    """As templates read them; what is not JSON stays as it came."""
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    shaped = template(TEXTS).shape({"role": "assistant", "content": "", "tool_calls": [call, "odd"]})
    assert [c["function"]["arguments"] if c != "odd" else c for c in shaped["tool_calls"]] == [expected, "odd"]


def test_reasoning_is_found_under_each_of_its_names():
    """Clients and templates name it differently."""
    shaped = template(TEXTS).shape({"role": "assistant", "content": "x", "reasoning": "why"})
    assert (shaped["reasoning_content"], shaped["thinking"]) == ("why", "why")


def test_special_tokens_are_variables():
    """And the literals of the template are known."""
    written = template("{{ bos_token }}[INST]{{ 'user' if messages else '' }}")
    assert written.render([{"role": "user", "content": ""}]) == "<s>[INST]user"
    assert {"[INST]", "user"} <= set(written.literals.split("\0"))


def test_a_text_that_is_no_template_is_refused_at_once():
    """Not at the first request."""
    with pytest.raises(ModelError, match="does not compile"):
        template("{% for %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages[0].__class__.__base__.__subclasses__() }}",
        "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
        "{{ namespace(_x=1) }}",
        "{{ range(10000000) | list }}",
        "{{ 1 / 0 }}",
    ],
)
def test_templates_run_in_a_sandbox(source):
    """They come from strangers: no way out, no change of what they are given, no endless lists."""
    with pytest.raises(InvalidInput, match="refuses"):
        template(source).render([{"role": "user", "content": "x"}])
