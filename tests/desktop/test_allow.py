"""Names of an allow list as people write them."""

from __future__ import annotations

import pytest

from cambio_lab.desktop.provider import domain, domains
from cambio_lab.errors import InvalidRequest
from cambio_lab.sessions.config import SessionConfig
from cambio_lab.settings import Settings


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.Org", "example.org"),
        ("example.org.", "example.org"),
        (".example.org", ".example.org"),
        ("*.Example.org", ".example.org"),
        ("localhost", "localhost"),
        ("203.0.113.10", "203.0.113.10"),
        ("a_b.xn--mnchen-3ya.de", "a_b.xn--mnchen-3ya.de"),
    ],
)
def test_one_form(given: str, expected: str) -> None:
    assert domain(given) == domain(expected) == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("example.org:8080", "port"),
        ("::1", "port"),
        ("https://example.org/", "scheme"),
        ("example.org/path", "path"),
        ("münchen.de", "xn--"),
        ("", "not a host name"),
        (".", "not a host name"),
        ("*", "not a host name"),
        ("..example.org", "not a host name"),
        ("*.*.example.org", "not a host name"),
        ("a b", "not a host name"),
        ("a\nhttp_access allow all", "not a host name"),
        ("-a.org", "not a host name"),
        ("a" * 64 + ".org", "not a host name"),
        ("a." * 127 + "a", "not a host name"),
        (5, "not text"),
    ],
)
def test_what_is_no_name_is_refused(given: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        domain(given)
    with pytest.raises(InvalidRequest) as refused:
        SessionConfig.parse({"network": {"allow": ["example.org", given]}})
    assert says in str(refused.value.details["config.network"])


def test_names_that_another_entry_covers_are_dropped() -> None:
    given = [".b.org", "b.org", "*.a.b.org", "x.a.b.org", "bb.org", "a.org", "A.org", ".c.a.org"]
    assert domains(given) == (".b.org", "bb.org", "a.org", ".c.a.org")
    options = SessionConfig.parse({"network": {"allow": given}}).desktop_options(Settings())
    assert options.allow_hosts == domains(given)
