"""The text of descriptions is read whole or refused with the line, and written back as it came."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.sdp import SdpError, parse
from relay.sdp.grammar import (
    MAX_ATTRIBUTES,
    MAX_BYTES,
    MAX_LINE_CHARACTERS,
    MAX_SECTIONS,
    Attribute,
    MediaSection,
    Origin,
    SessionDescription,
)
from tests.support.sdp_text import audio, offer, video

VECTORS = sorted((Path(__file__).parents[2] / "vectors" / "sdp").glob("*.sdp"))
HEAD = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"

tokens = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-.+_|!", min_size=1, max_size=12)
values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=30)
texts = values.filter(bool)
numbers = st.integers(0, 1 << 64).map(str)
attributes = st.lists(st.builds(Attribute, tokens, st.none() | values), max_size=5).map(tuple)


def lines_in(order: str):
    """Lines in the order they are written in, those that stand once at most once."""
    return st.lists(st.tuples(st.sampled_from(order), values), max_size=5, unique_by=lambda entry: entry[0]).map(
        lambda lines: tuple(sorted(lines, key=lambda entry: order.index(entry[0])))
    )


sections = st.builds(
    MediaSection,
    tokens,
    st.integers(0, 65_535),
    st.lists(tokens, min_size=1, max_size=3).map("/".join),
    st.lists(tokens, min_size=1, max_size=5).map(tuple),
    attributes,
    lines_in("icbk"),
    st.none() | st.integers(0, 65_535),
)
descriptions = st.builds(
    SessionDescription,
    st.builds(Origin, tokens, numbers, numbers, tokens, tokens, tokens),
    texts,
    lines_in("iuepcbzk").map(
        lambda lines: (
            *(entry for entry in lines if entry[0] in "iuepcb"),
            ("t", "0 0"),
            ("r", "7d 1h 0 25h"),
            ("t", "1 2"),
            *(entry for entry in lines if entry[0] in "zk"),
        )
    ),
    attributes,
    st.lists(sections, max_size=4).map(tuple),
)


@settings(max_examples=150)
@given(descriptions)
def test_what_is_written_reads_back_the_same(description):
    assert parse(str(description)) == description
    assert parse(str(description).encode()) == description


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_recorded_descriptions_are_written_back_byte_for_byte(path):
    text = path.read_bytes().decode()
    assert str(parse(text)) == text


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_description_cut_anywhere_is_read_or_refused(path):
    text = path.read_bytes()
    outcomes = set()
    for length in range(0, min(len(text), 1500), 7):
        try:
            parse(text[:length])
            outcomes.add("read")
        except SdpError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_line_ends_may_be_lf_and_the_last_may_be_missing_or_doubled():
    expected = parse(offer(audio("0")))
    unix = offer(audio("0")).replace("\r\n", "\n")
    assert parse(unix) == expected
    assert parse(unix.rstrip("\n")) == expected
    assert parse(offer(audio("0")) + "\r\n\r\n") == expected


def test_line_numbers_are_those_of_the_text():
    description = parse(offer(audio("0"), video("1")))
    assert [section.line for section in description.sections] == [6, 18]
    assert description.sections[0].first("mid").line == 12


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "v="),
        ("v=1\r\n", 1, "version is 0"),
        ("o=- 1 1 IN IP4 0\r\n", 1, "v= has to stand here, not o="),
        ("v=0\r\ns=-\r\n", 2, "o= has to stand here"),
        ("v=0\r\no=- 1 1 IN IP4\r\ns=-\r\n", 2, "o= line is"),
        ("v=0\r\no=- x 1 IN IP4 0\r\ns=-\r\n", 2, "are numbers"),
        ("v=0\r\no=- ١ 1 IN IP4 0\r\ns=-\r\n", 2, "are numbers"),
        ("v=0\r\no=- 1 1 IN IP4 0\r\ns=-\r\n", 4, "t= line is missing"),
        (HEAD + "x=1\r\n", 5, "allowed are"),
        (HEAD + "hello\r\n", 5, "a letter, '=' and a value"),
        (HEAD + "\r\na=x\r\n", 5, "empty line"),
        (HEAD + "a=x\0\r\n", 5, "NUL"),
        (HEAD + "a=x\ry\r\n", 5, "CR"),
        (HEAD + "a=:x\r\n", 5, "name is a token"),
        (HEAD + "a=b c\r\n", 5, "name is a token"),
        (HEAD + "i=x\r\ni=y\r\n", 6, "i= stands once"),
        (HEAD + "m=audio 9 UDP\r\n", 5, "m= line is"),
        (HEAD + "m=audio  9 UDP 0\r\n", 5, "m= line is"),
        (HEAD + "m=audio 65536 UDP 0\r\n", 5, "a port is a number from 0 to 65535"),
        (HEAD + "m=audio -1 UDP 0\r\n", 5, "a port is a number"),
        (HEAD + "m=audio ٣ UDP 0\r\n", 5, "a port is a number"),
        (HEAD + "m=audio 9/x UDP 0\r\n", 5, "a number of ports"),
        (HEAD + "m=audio 9 UDP/ 0\r\n", 5, "tokens"),
        (HEAD + "m=audio 9 UDP 0\r\nt=0 0\r\n", 6, "allowed are i= c= b= k= a= m="),
    ],
)
def test_a_refusal_names_the_line_and_what_may_stand_there(text, line, says):
    with pytest.raises(SdpError, match=says) as refused:
        parse(text)
    assert refused.value.line == line
    assert str(refused.value).startswith(f"line {line}: ")


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(SdpError, match="UTF-8"):
        parse(b"v=0\r\n\xff\xfe")
    with pytest.raises(SdpError, match="UTF-8"):
        parse("v=0\r\n\ud800")


def test_a_megabyte_is_refused_for_its_size_and_the_limit_itself_is_not():
    with pytest.raises(SdpError, match=f"at most {MAX_BYTES} bytes"):
        parse("v=0\r\n" + "a=x\r\n" * 200_000)
    with pytest.raises(SdpError, match=f"at most {MAX_BYTES} bytes"):
        parse(HEAD + "s=" + "€" * (MAX_BYTES // 3))
    filler = "a=" + "x" * 1021 + "\r\n"
    text = HEAD + filler * ((MAX_BYTES - len(HEAD)) // len(filler))
    text += "a=" + "x" * (MAX_BYTES - len(text) - 4) + "\r\n"
    assert len(text) == MAX_BYTES
    parse(text)
    with pytest.raises(SdpError, match=f"at most {MAX_BYTES} bytes"):
        parse(text.encode() + b"\n")


def test_long_lines_and_many_sections_are_refused_where_they_pass_the_limit():
    parse(HEAD + "a=" + "x" * (MAX_LINE_CHARACTERS - 2) + "\r\n")
    with pytest.raises(SdpError, match="a line has at most") as refused:
        parse(HEAD + "a=" + "x" * (MAX_LINE_CHARACTERS - 1) + "\r\n")
    assert refused.value.line == 5
    line = "m=audio 9 UDP 0\r\n"
    assert len(parse(HEAD + line * MAX_SECTIONS).sections) == MAX_SECTIONS
    with pytest.raises(SdpError, match=f"at most {MAX_SECTIONS} m= lines") as refused:
        parse(HEAD + line * (MAX_SECTIONS + 1))
    assert refused.value.line == 5 + MAX_SECTIONS


def test_attributes_of_one_block_have_a_limit():
    media = "m=audio 9 UDP 0\r\n"
    full = "a=x\r\n" * MAX_ATTRIBUTES
    parse(HEAD + full + media + full)
    for text, line in ((HEAD + full + "a=x\r\n", 5), (HEAD + media + full + "a=x\r\n", 6)):
        with pytest.raises(SdpError, match=f"at most {MAX_ATTRIBUTES} attributes") as refused:
            parse(text)
        assert refused.value.line == line + MAX_ATTRIBUTES


def test_a_message_does_not_repeat_a_long_line_of_the_peer():
    with pytest.raises(SdpError) as refused:
        parse(HEAD + "y" * 5000 + "\r\n")
    assert len(str(refused.value)) < 150
