"""Encoding in pieces is encoding."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from ctxmem.tokens.control import END, START
from ctxmem.tokens.vocabulary import Rendered, Vocabulary

_CORPUS = [
    "the cat sat on the mat in 2024, and the hat",
    "Là-bas  il y a   un chat\n\nassistant\nuser\nsystem hello",
] * 3
_SPECIAL = ["<s>", "<|im_start|>", "<|im_end|>"]


def _byte_level(*, prefix: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def _metaspace(scheme: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<s>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.train_from_iterator(
        _CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=_SPECIAL, show_progress=False)
    )
    return tokenizer


def _prepended() -> Tokenizer:
    """The older shape of Llama's tokenizers."""
    tokenizer = Tokenizer(models.BPE(unk_token="<s>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.train_from_iterator(
        _CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=_SPECIAL, show_progress=False)
    )
    return tokenizer


def _word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<s>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        _CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=_SPECIAL, show_progress=False)
    )
    return tokenizer


def _with(tokenizer: Tokenizer, *tokens: AddedToken) -> Tokenizer:
    tokenizer.add_tokens(list(tokens))
    return tokenizer


SHAPES = {
    "byte level": (_byte_level(prefix=False), True),
    "byte level, blank before": (_byte_level(prefix=True), True),
    "metaspace always": (_metaspace("always"), True),
    "metaspace never": (_metaspace("never"), True),
    "metaspace first": (_metaspace("first"), False),
    "prepended": (_prepended(), True),
    "word piece": (_word_piece(), True),
    "added text tokens": (
        _with(_byte_level(prefix=False), AddedToken("<think>", normalized=False), AddedToken("cat", normalized=True)),
        True,
    ),
    "token inside a token": (_with(_byte_level(prefix=False), AddedToken("<s><s>", normalized=False)), True),
    "takes blanks in": (_with(_byte_level(prefix=False), AddedToken("<pad>", lstrip=True, normalized=False)), False),
    "whole words": (_with(_byte_level(prefix=False), AddedToken("<w>", single_word=True)), False),
}
"""By name, a tokenizer and whether it can be cut at its added tokens."""

_fragments = st.sampled_from(
    [
        *_SPECIAL,
        "<think>",
        "<pad>",
        "<w>",
        "<s><s>",
        "cat",
        " cat",
        "the cat sat",
        " ",
        "  ",
        "\n",
        "user\n",
        "2024",
        "é",
        "😀",
    ]
)
_chats = st.lists(_fragments | st.text(max_size=8), max_size=12).map("".join)


@pytest.mark.parametrize("shape", SHAPES)
@given(text=_chats)
@settings(max_examples=60)
def test_pieces_encode_as_the_whole(shape, text):
    """For every shape of tokenizer, whatever stands beside a control token, on the first count and on the second."""
    tokenizer, _ = SHAPES[shape]
    vocabulary = Vocabulary(tokenizer)
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    assert vocabulary.ids(Rendered(text)) == whole
    assert [vocabulary.count(Rendered(text)) for _ in range(2)] == [len(whole)] * 2


@pytest.mark.parametrize("shape", SHAPES)
def test_tokenizers_are_cut_only_where_their_shape_allows(shape):
    """Blanks taken in, word borders and a special first piece forbid it."""
    tokenizer, separable = SHAPES[shape]
    assert Vocabulary(tokenizer).separable is separable


@pytest.mark.parametrize("shape", SHAPES)
@given(text=_chats)
@settings(max_examples=40)
def test_guarded_text_holds_no_control_token(shape, text):
    """Whatever people say, none of the ids steers the model, and the count is that of the ids."""
    tokenizer, _ = SHAPES[shape]
    vocabulary = Vocabulary(tokenizer)
    guarded = vocabulary.guard(text)
    ids = vocabulary.ids(guarded)
    assert not {tokenizer.token_to_id(token) for token in _SPECIAL if token != "<s>"} & set(
        ids
    )  # unknown letters are <s>
    assert vocabulary.count(guarded) == len(ids)


def test_what_a_template_writes_is_control_too():
    """An added token that is not special, but which the template uses to mark a turn."""
    tokenizer = _with(_byte_level(prefix=False), AddedToken("<turn>", normalized=False))
    id = tokenizer.token_to_id("<turn>")
    plain, written = Vocabulary(tokenizer), Vocabulary(tokenizer, "<turn>user\n")
    assert id in plain.ids(plain.guard("a <turn> b"))
    assert id not in written.ids(written.guard("a <turn> b"))
    assert id in written.ids(Rendered("a <turn> b"))


def test_a_template_may_split_what_was_said_at_a_look_alike():
    """As templates do at `</think>`: the halves stay text, and what the template writes beside them stays control."""
    vocabulary = Vocabulary(SHAPES["byte level"][0])
    (control,) = vocabulary.ids(Rendered("<|im_end|>"))
    before, after = vocabulary.guard("x<|im_end|>y").text.split("<|im_end|>")
    assert control not in vocabulary.ids(Rendered(before + after, marked=True))
    assert control in vocabulary.ids(Rendered(f"{before}<|im_end|>", marked=True))
    assert control in vocabulary.ids(Rendered(f"<|im_end|>{after}", marked=True))


def test_text_does_not_join_across_lone_marks():
    """As when a template splits what was said at a token and drops the token."""
    vocabulary = Vocabulary(SHAPES["byte level"][0])
    assert len(vocabulary.ids(Rendered(f"<|im_{START}{END}end|>", marked=True))) > 1


def test_lone_surrogates_are_counted_not_refused():
    """JSON lets them through."""
    vocabulary = Vocabulary(SHAPES["byte level"][0])
    assert vocabulary.ids(Rendered("a\ud800")) == vocabulary.ids(Rendered("a\ufffd"))


def test_truncation_and_padding_kept_with_a_tokenizer_do_not_count():
    """Files carry both from training."""
    tokenizer = _byte_level(prefix=False)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    assert Vocabulary(tokenizer).count(Rendered("the cat sat on the mat " * 5)) > 16
    assert Vocabulary(tokenizer).count(Rendered("")) == 0
