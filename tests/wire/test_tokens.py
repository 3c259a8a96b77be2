"""The text forms of secrets: they parse into what they were made of, and errors never repeat them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors
from edgeflow_agent.wire import tokens


def hexes(count: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=count // 2, max_size=count // 2).map(bytes.hex)


@given(hexes(16), hexes(48), hexes(32))
def test_token_round_trip(public: str, secret: str, fingerprint: str) -> None:
    token = tokens.Token(public, secret, fingerprint)
    text = tokens.format_token(token)
    assert tokens.parse_token(text) == tokens.parse_token(f"  {text}\n") == token
    assert tokens.SECRET.search(f"log line with {text} in it")
    assert tokens.parse_credential(text) is None


@given(hexes(16), hexes(64))
def test_credential_round_trip(public: str, secret: str) -> None:
    credential = tokens.Credential(public, secret)
    text = tokens.format_credential(credential)
    assert tokens.parse_credential(text) == credential
    assert tokens.SECRET.search(f"Bearer {text}")
    with pytest.raises(errors.ContractError):
        tokens.parse_token(text)


@given(st.one_of(st.text(max_size=120), st.from_regex(r"ef[td]1_[0-9a-f_]{0,110}", fullmatch=True)))
def test_nothing_else_parses(text: str) -> None:
    assert (
        tokens.parse_credential(text) is None
        or tokens.format_credential(tokens.parse_credential(text) or tokens.Credential("", "")) == text
    )
    with contextlib.suppress(errors.ContractError):
        assert tokens.format_token(tokens.parse_token(text)) == text.strip()


def test_an_error_does_not_repeat_the_secret() -> None:
    text = "eft1_" + "a" * 16 + "_" + "b" * 48 + "_" + "c" * 31
    with pytest.raises(errors.ContractError) as caught:
        tokens.parse_token(text)
    assert "bbbb" not in str(caught.value)
    assert "edgeflow tokens create" in str(caught.value)


def test_ids_and_hashes() -> None:
    made = {tokens.new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(item) == 16 for item in made)
    assert tokens.hash_secret("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
