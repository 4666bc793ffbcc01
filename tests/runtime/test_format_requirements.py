"""An app's requirements: merged by package, and held against the worker's own before anything is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from bioengine_runtime.apps.errors import BadApp, PrepareFailed
from bioengine_runtime.apps.here import Need, is_here, needs, versions
from bioengine_runtime.apps.layer import layer_path
from bioengine_runtime.apps.merging import conflicts, constraints, merged

HERE = {"numpy": "2.4.6", "pydantic": "2.12.0", "protobuf": "7.36.2", "old": "1.0"}
NEEDS = {
    "numpy": (Need("ray 2.60.0", SpecifierSet(">=2")),),
    "protobuf": (Need("ray 2.60.0", SpecifierSet(">=3.20.3")),),
    "old": (Need("ray 2.60.0", SpecifierSet(">=2")),),
}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["NumPy>=1.26", "numpy<3"], ["numpy<3,>=1.26"]),
        (["scikit_image", "scikit-image==0.25.0"], ["scikit-image==0.25.0"]),
        (["httpx[socks]", "httpx[http2]==0.28.1"], ["httpx[http2,socks]==0.28.1"]),
        (["x>=1,<2"], ["x<2,>=1"]),
        (["x~=1.4"], ["x~=1.4"]),
        (["x==1.*", "x>=1.2"], ["x==1.*,>=1.2"]),
        (["b==1", "a==1", "b==1"], ["b==1", "a==1"]),
        (["pywin32; sys_platform == 'win32'", "x; python_version >= '3'"], ["x"]),
        (["# only a comment", "", "  x==1  # because"], ["x==1"]),
        (["--extra-index-url https://example.org", "git+https://example.org/x"],) * 2,
        (["x @ https://example.org/x.whl#sha256=0", "X"], ["x @ https://example.org/x.whl#sha256=0"]),
    ],
)
def test_requirements_are_merged_by_package(lines: list[str], expected: list[str]):
    assert merged(lines) == expected
    assert merged(merged(lines)) == expected


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["numpy==1.26", "NumPy>=2"], "numpy==1.26 and NumPy>=2 exclude each other; keep one of them"),
        (["x==1", "x==2"], "x==1 and x==2 exclude each other"),
        (["x @ https://a.example/x.whl", "x==1"], "exclude each other"),
        (["numpy=1.26"], '"numpy=1.26" is not a requirement'),
        (["numpy 1.26"], "write name==version"),
    ],
)
def test_what_contradicts_itself_or_is_no_requirement_is_told(lines: list[str], problem: str):
    with pytest.raises(BadApp) as told:
        merged(lines)
    assert problem in str(told.value)


def test_a_pin_against_what_ray_needs_says_what_where_and_the_way_out():
    (told,) = conflicts(["numpy==1.26"], HERE, NEEDS)
    assert told == (
        "numpy==1.26 against numpy>=2, which ray 2.60.0 of the worker needs in every replica; "
        "ask for a version that fits both (the worker has 2.4.6)"
    )


def test_what_the_two_sides_exchange_objects_with_cannot_be_the_apps_own():
    (told,) = conflicts(["pydantic==2.11.0"], HERE, NEEDS)
    assert "pydantic==2.11.0 against pydantic 2.12.0 of the worker" in told
    assert "without a version, or for a range with 2.12.0 in it" in told


@pytest.mark.parametrize(
    "line", ["numpy==2.1.0", "pydantic>=2", "protobuf==5.29.3", "other==1", "numpy>=1", "old==1.5"]
)
def test_an_app_may_have_its_own_version_of_what_nothing_of_ours_forbids(line: str):
    assert conflicts([line], HERE, NEEDS) == []


def test_the_resolver_is_told_the_same_for_what_comes_in_by_a_detour():
    assert constraints(HERE, NEEDS) == ["pydantic==2.12.0", "numpy>=2", "protobuf>=3.20.3"]


def test_the_workers_environment_knows_what_its_replicas_need():
    assert "ray" in versions() and "hypha-rpc" in versions()
    assert any(need.by.startswith("ray ") for need in needs()["numpy"])
    assert conflicts(["protobuf==3.1"], versions(), needs())
    assert conflicts([f"{name}=={version}" for name, version in versions().items()], versions(), needs()) == []


def test_an_extra_is_there_when_all_that_it_brings_is_there():
    assert is_here(Requirement("ray[serve]"))
    assert not is_here(Requirement("ray>=999"))
    assert not is_here(Requirement("ray[no-such-extra,serve]>=999"))
    assert not is_here(Requirement("no-such-package"))


def test_what_is_here_needs_no_layer_however_it_is_spelt(tmp_path: Path):
    version = versions()["pydantic"]
    assert layer_path(["Pydantic", "hypha_rpc", f"pydantic=={version}", "x; sys_platform == 'win32'"], tmp_path) is None


def test_one_list_of_packages_is_one_layer_however_it_is_written(tmp_path: Path):
    one = layer_path(["No-Such_Package==1", "other>=1,<2"], tmp_path)
    assert one is not None
    assert one == layer_path(["other<2", "no.such.package==1", "other>=1"], tmp_path)


def test_a_conflict_is_told_before_anything_is_installed(tmp_path: Path):
    with pytest.raises(PrepareFailed, match=r"pydantic==1\.10\.2 against pydantic .* of the worker"):
        layer_path(["pydantic==1.10.2"], tmp_path)
    assert list(tmp_path.iterdir()) == []
