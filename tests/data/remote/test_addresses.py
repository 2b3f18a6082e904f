"""Addresses: joined with paths, told from paths, and shown without credentials."""

import pytest

from vtcav_jax.data.remote import addresses, object_store

SIGNED = "https://me@host/a%20b.mp4?id=5&X-Amz-Signature=abc&X-Amz-Credential=key%2Fx&token=t"


@pytest.mark.parametrize(
    ("base", "path", "joined"),
    [
        ("https://h/f/m.csv?token=1", "a b #1?.mp4", "https://h/f/a%20b%20%231%3F.mp4"),
        ("https://h/f/m.csv", "../x/100%.mp4", "https://h/x/100%25.mp4"),
        ("https://h/f/m.csv", "gs://b/y.mp4", "gs://b/y.mp4"),
        ("s3://bucket/f/m.csv", "a b#1?.mp4", "s3://bucket/f/a b#1?.mp4"),
        ("gs://bucket/f/m.csv", "../x.mp4", "gs://bucket/x.mp4"),
        ("memory://m.csv", "d/x.mp4", "memory://d/x.mp4"),
    ],
)
def test_paths_are_relative_to_the_folder_of_an_address(base, path, joined):
    assert addresses.join_address(base, path) == joined


def test_paths_and_other_specifications_are_no_addresses():
    texts = ("https://h/x", "s3://b", "memory://x", "file:///etc/passwd", "videos", "tfds:ucf101:train", "C:/x", "://x")
    assert [addresses.is_address(text) for text in texts] == [True] * 4 + [False] * 4


def test_credentials_are_not_shown():
    assert addresses.printable_address(SIGNED) == "https://host/a%20b.mp4?id=5"
    assert addresses.object_name(SIGNED) == "a b.mp4" and addresses.object_suffix(SIGNED) == ".mp4"
    assert addresses.without_signature(SIGNED) == "https://me@host/a%20b.mp4?id=5"
    assert addresses.printable_address("s3://bucket/a?token=b.mp4") == "s3://bucket/a?token=b.mp4"  # a name


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://me:word@host/x.mp4", r"^https://host/x.mp4 contains a password; .*netrc"),
        ("file:///tmp/x.mp4", "is a local file; write its path without file://"),
        (SIGNED, r"\(X-Amz-Signature, X-Amz-Credential, token\), and a run records its command; write .* manifest"),
    ],
)
def test_addresses_that_would_be_recorded_have_no_credentials(address, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        addresses.check_recordable(address)
    assert "word" not in str(caught.value).replace("password", "") and "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://[bad/x.mp4?token=secret", r"^https://\[bad/x\.mp4 is no valid address .*expected https://HOST/PATH"),
        ("zip://a.mp4::http://h/x.zip", "is an address within another, .*extract the files first"),
    ],
)
def test_malformed_addresses_are_refused(address, reason):
    for check in (addresses.check_recordable, object_store.store_of):
        with pytest.raises(ValueError, match=reason):
            check(address)
    assert addresses.object_name(address) and "secret" not in addresses.printable_address(address)
    assert addresses.printable_address("https://me:word@[bad/x.mp4") == "https://[bad/x.mp4"


def test_a_name_with_two_colons_is_no_address_within_another():
    addresses.check_form("s3://bucket/a::b.mp4")
    addresses.check_form("https://host/a::http://b.mp4")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ftp://h/x.mp4", r"^ftp://\.\.\. needs host in the configuration of fsspec, .*expected https://, .*download"),
        ("github://a/b.mp4", r"^github://\.\.\. needs org and repo in the configuration"),
        ("zip://a.mp4", r"^zip://\.\.\. cannot be opened by an address alone \(.*Error\); .*download the files first"),
    ],
)
def test_protocols_that_an_address_does_not_open_are_refused(address, reason):
    pytest.importorskip("fsspec")
    with pytest.raises(ValueError, match=reason):
        object_store.store_of(address)
