"""Targets to explain: URLs and hosts, valid and invalid."""

import re

import pytest

from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.target import Target, parse_target

HTTPS, HTTP = Protocol.HTTPS, Protocol.HTTP


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a.test", Target("a.test", HTTPS, 443)),
        ("a.test/path?query#part", Target("a.test", HTTPS, 443)),
        ("tcp://a.test:80", Target("a.test", Protocol.TCP, 80)),
        ("tls://a.test", Target("a.test", HTTPS, 443)),
        ("HTTP://a.test", Target("a.test", HTTP, 80)),
        ("ws://a.test:8080", Target("a.test", HTTP, 8080)),
        ("https://user:word@a.test:8443/", Target("a.test", HTTPS, 8443)),
        ("https://a.test\\@b.test", Target("a.test", HTTPS, 443)),
        ("https://münchen.test/", Target("xn--mnchen-3ya.test", HTTPS, 443)),
        (" https://a.test ", Target("a.test", HTTPS, 443)),
    ],
)
def test_what_can_be_asked_about(text: str, wanted: Target) -> None:
    """A URL or host gives a canonical name, a protocol and a port."""
    assert parse_target(text) == wanted


@pytest.mark.parametrize(
    ("text", "name", "mistake"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1 is an address, and agents reach names only"),
        ("2001:db8::1", "2001:db8::1", "2001:db8::1 is an address, and agents reach names only"),
        ("https://0x7f.1/", "0x7f.1", "'0x7f.1' is an address; rules name hosts"),
        (".a.test", ".a.test", "'.a.test' begins with a dot, which only a rule may"),
        ("*.a.test", "*.a.test", "'*.a.test' has a `*`; write `.a.test` for a name and everything below it"),
    ],
)
def test_what_is_no_host_name(text: str, name: str, mistake: str) -> None:
    """An invalid host name is explained, not refused as a usage error: an agent may try it."""
    found = parse_target(text)
    assert (found.name, found.mistake) == (name, mistake)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ftp://secret@a.test", "ftp:// is not supported; https, http, tcp, ssh, udp, tls, wss, ws are"),
        ("tcp://a.test", "tcp has no usual port; add one, as in tcp://a.test:5432"),
        ("https:///secret", "it names no host"),
        ("https://secret@", "it names no host"),
        ("a.test:secret", "a port is a number from 1 to 65535"),
        ("[::1]secret", "a port is a number from 1 to 65535"),
    ],
)
def test_what_cannot_be_asked_about(text: str, sentence: str) -> None:
    """The message says what is supported, and repeats only the URL's scheme."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        parse_target(text)
