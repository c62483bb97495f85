"""Small files that others wrote: read whatever their encoding, or refused in one line."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iarmem_plugin.errors import InputError
from iarmem_plugin.untrusted import MAX_DEPTH, decode, parse_json, read_json, read_small, read_text

ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_is_the_same_in_every_encoding(tmp_path: Path, encoding: str, end: str) -> None:
    written = ENCODINGS[encoding] + f"grün 1{end}日本 2{end}".encode(encoding)
    (tmp_path / "a").write_bytes(written)
    assert read_text(tmp_path / "a", "the file") == "grün 1\n日本 2\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ab\xff", r"the file is not text in UTF-8 \(byte 2\)"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8", r"the file is not text in UTF-16 \(byte "),
        ("no mark".encode("utf-16-le"), "has null bytes; save it as UTF-8"),
        (b"a\0b", "has null bytes"),
    ],
)
def test_bytes_that_are_no_text_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode(data, "the file")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pipe, "is not a file"),
        (endless, "is not a file"),
        (Path.mkdir, "is not a file"),
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.write_bytes(b"12345"), "is larger than 0 MB"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
    ],
)
def test_what_is_no_small_file_is_refused_and_nothing_stays_open(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "a")
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(InputError, match=rf"^the file .*/a {message}$"):
        read_small(tmp_path / "a", "the file", limit=4)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_small(tmp_path / name, "the file")


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    assert read_small(tmp_path / "a", "the file", limit=4) == b"1234"


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text",
    [
        nested(MAX_DEPTH),
        json.dumps([[one] for one in range(300)]),
        json.dumps("[" * 300 + '"\\{'),
        json.dumps({'"[' * 100: ["\\"], "\\": '{"' * 100}),
        "9" * 100,
        "-1.5e-300",
    ],
)
def test_json_within_the_limits_is_read(text: str) -> None:
    assert parse_json(text, "the text") == json.loads(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (nested(MAX_DEPTH + 1), "more than 100 deep"),
        ("[" * 100_000, "more than 100 deep"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "more than 100 deep"),
        ('["\\"", ' + nested(MAX_DEPTH + 1) + "]", "more than 100 deep"),
        ("9" * 5000, "a number has 5000 digits"),
        ("1e999", "1e999 is not a number that fits"),
        ("NaN", "NaN is not a value"),
        ("-Infinity", "-Infinity is not a value"),
        ('[{"a": 1, "b": 2, "a": 3}]', "has the name 'a' twice in one object"),
        ('{"a": ', "Expecting value"),
        ('"\\', "Unterminated string"),
        ("", "Expecting value"),
    ],
)
def test_json_beyond_the_limits_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^the text is not JSON: .*{message}"):
        parse_json(text, "the text")


def test_pairs_are_given_to_who_wants_them(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'\xef\xbb\xbf{"a": 1, "a": 2}')
    assert read_json(tmp_path / "a", "the file", pairs=list) == [("a", 1), ("a", 2)]


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except InputError as error:
        return str(error)
    return ""


@given(st.text(st.sampled_from('[]{}"\\,:1a \n'), max_size=40), st.integers(0, 400))
def test_any_text_is_read_as_json_does_or_refused(text: str, brackets: int) -> None:
    whole = nested(1) + ",[]" * brackets  # so many that they are counted
    text = f"[{whole}, {text}]"
    said = refusal(partial(parse_json, text, "the text"))
    if "twice" in said:  # which the library takes
        return
    try:
        expected = json.loads(text)
    except ValueError:
        assert said.startswith("the text is not JSON: ")
    else:
        assert parse_json(text, "the text") == expected


@given(st.binary(max_size=60))
def test_any_bytes_are_text_or_refused_in_one_line(data: bytes) -> None:
    said = refusal(partial(decode, data, "the file"))
    assert "\n" not in said
    assert len(said) <= 400
