"""Origins are compared in the one form that browsers send them in."""

import pytest

from relay.origin import read_origin


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("https://calls.example.com", "https://calls.example.com"),
        ("https://Calls.Example.com:443", "https://calls.example.com"),
        ("HTTP://localhost:80", "http://localhost"),
        ("http://localhost:443", "http://localhost:443"),
        ("https://[2001:DB8:0::1]:7880", "https://[2001:db8::1]:7880"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_written_as_browsers_send_it(text: str, sent: str) -> None:
    assert read_origin(text) == sent


@pytest.mark.parametrize(
    "text",
    [
        "", "*", "null", "calls.example.com", "//calls.example.com", "https://", "https://:443", "https://a:", "https://a:0",
        "https://a:65536", "https://a:b", "https://a/", "https://a/b", "https://a?b", "https://a#b", "https://a@b", "https://a b",
        "https://a,https://b", "https://*.example.com", "https://a..b", "https://-a", "https://bücher.example", "https://[::1",
        "https://[nowhere]", "ftp://a", "wss://a", "javascript:alert(1)", "https://a\n", " https://a",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_origin(text)
