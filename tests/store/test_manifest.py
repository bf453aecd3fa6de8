from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from romacli.errors import SettingsDifferError, StoreError
from romacli.store.manifest import check_same, difference, fingerprint, read_manifest, write_manifest
from romacli.types import Manifest

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
jobs_settings = st.dictionaries(
    st.text("abcdefgh_", min_size=1), scalars | st.lists(scalars, max_size=3).map(tuple), max_size=5
)


def manifest(**settings):
    return Manifest(settings=settings, version="0.1.0")


@settings(deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(values=jobs_settings)
def test_a_manifest_read_back_does_not_differ(values, tmp_path_factory):
    path = tmp_path_factory.mktemp("job") / "manifest.json"
    written = manifest(**values)
    write_manifest(path, written)
    read = read_manifest(path)
    assert read is not None
    assert difference(read, written) == difference(written, read) == []
    assert fingerprint(read) == fingerprint(written)
    check_same(path, read, written)


def test_no_file_is_no_manifest(tmp_path):
    assert read_manifest(tmp_path / "manifest.json") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b'{"format": 1, "settings": 3, "version": "1"}', b"[" * 9999],
)
def test_a_damaged_manifest_is_named(tmp_path, content):
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"manifest\.json is damaged .* Run `romacli check .* --repair`"):
        read_manifest(path)


def test_a_newer_format_asks_for_an_update(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"format": 2, "version": "9", "settings": {}}))
    with pytest.raises(StoreError, match="has format 2, this version reads 1. Update romacli"):
        read_manifest(path)


def test_numbers_compare_by_value_and_unset_equals_absent():
    before = manifest(threshold=1.0, sizes=(560, 864), masks=None, folder=Path("a/b"), step=np.float64(0.5))
    after = manifest(threshold=np.int64(1), sizes=[560, 864], folder="a/b", step=0.5)
    assert difference(before, after) == []
    assert fingerprint(before) == fingerprint(after)


def test_the_version_is_told_but_does_not_differ():
    assert difference(Manifest({"seed": 1}, "0.1.0"), Manifest({"seed": 1}, "0.2.0")) == []


@pytest.mark.parametrize(
    ("before", "after", "phrase"),
    [
        (560, 448, "made with --coarse-resolution 560, this run asks for 448"),
        (0.1, 0.25, "made with --coarse-resolution 0.1, this run asks for 0.25"),
        (None, "x", "made without --coarse-resolution, this run asks for --coarse-resolution x"),
        ("x", None, "made with --coarse-resolution x, this run asks for none"),
        (True, False, "made with --coarse-resolution, this run asks for --no-coarse-resolution"),
        (False, True, "made with --no-coarse-resolution, this run asks for --coarse-resolution"),
        (True, 1, "made with --coarse-resolution, this run asks for 1"),
        ((560, 864), (560, 860), "made with --coarse-resolution 560 864, this run asks for 560 860"),
    ],
)
def test_a_difference_is_said_in_options(before, after, phrase):
    assert difference(manifest(coarse_resolution=before), manifest(coarse_resolution=after)) == [phrase]


def test_a_setting_that_older_jobs_lack_differs_only_from_another_value():
    old, new, newer = manifest(seed=0), manifest(seed=0, sixteen_bit="a"), manifest(seed=0, sixteen_bit="b")
    assert difference(old, new) == difference(new, old) == []
    assert difference(new, newer) != []
    assert fingerprint(old) == fingerprint(new)


def test_hashes_are_said_short_and_under_the_name_of_their_option():
    before, after = manifest(weights_sha256="a" * 64), manifest(weights_sha256="b" * 64)
    assert difference(before, after) == [
        "made with --weights sha256:aaaaaaaaaaaa, this run asks for sha256:bbbbbbbbbbbb"
    ]


def test_the_error_names_the_folder_every_option_and_what_to_do():
    with pytest.raises(SettingsDifferError) as caught:
        check_same(Path("OUT"), manifest(coarse_resolution=560), manifest(coarse_resolution=448))
    assert str(caught.value) == (
        "OUT was made with --coarse-resolution 560, this run asks for 448. "
        "Use the same value, another --output, or --overwrite."
    )
    with pytest.raises(SettingsDifferError, match=r"--a 1, .*; made with --b 2, .*the same values"):
        check_same(Path("OUT"), manifest(a=1, b=2), manifest(a=3, b=4))


def test_a_job_from_before_photographs_were_looked_at_mirrored_too_is_told_who_can_finish_it():
    old, new = manifest(seed=0), manifest(seed=0, mirrored=True)
    assert fingerprint(old) != fingerprint(new)
    with pytest.raises(SettingsDifferError, match=r"OUT was made before .*mirrored.*Use the romacli that began it"):
        check_same(Path("OUT"), old, new)
    assert "when romacli looked at mirrored" in difference(new, old)[0]
    with pytest.raises(SettingsDifferError, match=r"Use the same value with the romacli that began it"):
        check_same(Path("OUT"), old, manifest(seed=1, mirrored=True))


def test_a_job_of_the_weights_of_another_version_is_told_who_can_finish_it():
    with pytest.raises(SettingsDifferError, match=r"if no --weights was given, the romacli that began it"):
        check_same(Path("OUT"), manifest(weights_sha256="a"), manifest(weights_sha256="b"))
    with pytest.raises(SettingsDifferError, match=r"Use the same values, another"):
        check_same(Path("OUT"), manifest(model="a", weights_sha256="a"), manifest(model="b", weights_sha256="b"))


@pytest.mark.parametrize("key", ["model", "weights_sha256"])
def test_a_job_of_other_weights_is_not_told_when_photographs_were_looked_at_mirrored(key):
    one, other = manifest(**{key: "a"}), manifest(**{key: "b"}, mirrored=True)
    assert fingerprint(one) != fingerprint(other)
    for found in (difference(one, other), difference(other, one)):
        assert len(found) == 1
        assert "mirrored" not in found[0]


def test_a_nested_setting_that_differs_changes_the_fingerprint():
    before, after = manifest(compact={"nodes": 140}), manifest(compact={"nodes": 70})
    assert fingerprint(before) != fingerprint(after)
    assert difference(before, after) == ['made with --compact {"nodes":140}, this run asks for {"nodes":70}']
