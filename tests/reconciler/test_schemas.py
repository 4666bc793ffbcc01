"""The published schemas, and a corpus of files that both the schemas and our own reader judge."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from pydantic import BaseModel

from bioengine_runtime.contract.cluster import ClusterSpec
from bioengine_runtime.contract.manifest import AppManifest
from reconciler.planning.declare import parse_cluster
from reconciler.planning.explain import PATTERNS, parse
from reconciler.planning.yaml_text import Document, Fault, read_yaml
from reconciler.schemas import DIALECT, published, text

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus"
MODELS: dict[str, type[BaseModel]] = {"cluster": ClusterSpec, "manifest": AppManifest}
EXAMPLES = [
    ("cluster", ROOT / "example-desired-state" / "cluster.yaml"),
    *(("manifest", path) for path in sorted(ROOT.glob("example-desired-state/apps/*/manifest.yaml"))),
]


def corpus(verdict: str) -> list[Any]:
    return [
        pytest.param(kind, path, id=f"{kind}-{path.stem}")
        for kind in MODELS
        for path in sorted((CORPUS / kind / verdict).glob("*.yaml"))
    ]


@cache
def schema_of(kind: str) -> Validator:
    return Draft202012Validator(published()[f"{kind}.schema.json"])


def read(kind: str, path: Path) -> tuple[Document, list[Fault]]:
    if kind == "cluster":
        _, document, faults = parse_cluster(path.read_bytes())
        return document, faults
    document = read_yaml(path.read_bytes())
    return document, parse(MODELS[kind], document)[1]


@pytest.mark.parametrize("name", sorted(published()))
def test_the_committed_schema_is_the_one_of_the_models(name: str) -> None:
    committed = (ROOT / "schemas" / name).read_text(encoding="utf-8")
    assert committed == text(published()[name]), "run `python -m reconciler.schemas`"


def test_nothing_else_lies_among_the_schemas() -> None:
    assert {path.name for path in (ROOT / "schemas").glob("*.json")} >= set(published())


@pytest.mark.parametrize("kind", MODELS)
def test_a_schema_is_a_valid_schema_of_its_dialect(kind: str) -> None:
    schema = published()[f"{kind}.schema.json"]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DIALECT
    assert schema["$id"] == f"urn:bioengine:schema:{kind}"


@pytest.mark.parametrize(("kind", "path"), [*corpus("good"), *EXAMPLES])
def test_a_good_file_is_accepted_by_both(kind: str, path: Path) -> None:
    document, faults = read(kind, path)
    assert faults == []
    assert [error.message for error in schema_of(kind).iter_errors(document.value)] == []


@pytest.mark.parametrize(("kind", "path"), corpus("bad"))
def test_a_bad_file_is_refused_with_the_words_it_expects(kind: str, path: Path) -> None:
    head = path.read_text(encoding="utf-8")
    expected = re.match(r"# expect: (.+)\n", head)
    assert expected, "begin the file with `# expect: <part of the message>`"
    _, faults = read(kind, path)
    told = [f"{fault.message} | {fault.fix}" for fault in faults]
    assert any(expected[1] in line for line in told), told


@pytest.mark.parametrize(("kind", "path"), corpus("bad"))
def test_a_bad_file_is_refused_by_the_schema_too_as_far_as_it_can_see(kind: str, path: Path) -> None:
    document, _ = read(kind, path)
    if "# schema: cannot see it\n" in document.text or document.value is None:
        return
    assert not schema_of(kind).is_valid(document.value)


@pytest.mark.parametrize(("kind", "path"), [*corpus("bad"), *corpus("good")])
def test_what_is_accepted_is_valid_by_the_schema(kind: str, path: Path) -> None:
    document, faults = read(kind, path)
    assert faults or schema_of(kind).is_valid(document.value)


@pytest.mark.parametrize(("kind", "path"), corpus("bad"))
def test_a_mistake_is_told_at_its_line_or_of_the_file_as_a_whole(kind: str, path: Path) -> None:
    document, faults = read(kind, path)
    lines = document.text.splitlines()
    for fault in faults:
        assert fault.line == 0 or 1 <= fault.line <= len(lines) + 1
        assert fault.column >= (1 if fault.line else 0)
    assert faults


def test_a_text_with_a_variable_is_valid_as_it_is_written() -> None:
    """Caught: an editor saw only that it is no id, no URL and no word that is known."""
    written = read_yaml((CORPUS / "cluster" / "good" / "variables-of-every-kind.yaml").read_bytes())
    assert [error.message for error in schema_of("cluster").iter_errors(written.value)] == []


OVERLAYS = {
    "no name": {"hypha": {"worker": "w"}},
    "a part of an app": {"apps": {"one": {"replicas": 2, "suspend": {"until": "2026-12-04T18:00:00Z"}}}},
    "a part of a machine": {"compute": {"partition": "gpu", "workers": {"max": 8}}},
    "null removes a field": {"apps": {"one": {"debug": None, "source": None}}, "variables": {"A": None}},
    "null removes an app": {"apps": {"one": None}, "policy": None},
}


@pytest.mark.parametrize("said", OVERLAYS)
def test_what_says_only_how_it_differs_is_valid_and_alone_it_is_not(said: str) -> None:
    """Caught: an editor marked every file that extends another as wrong."""
    assert schema_of("cluster").is_valid({"extends": "base.yaml", **OVERLAYS[said]})
    assert not schema_of("cluster").is_valid(OVERLAYS[said])


@pytest.mark.parametrize(
    "wrong",
    [
        {"apps": {"one": {"replcas": 2}}},
        {"apps": {"one": {"replicas": "2"}}},
        {"policy": {"windows": [{"start": "22:00"}]}},
        {"apps": {"one": {"hypha_token": {"env": "${NAME}"}}}},
    ],
)
def test_a_mistake_in_what_differs_is_seen(wrong: dict[str, Any]) -> None:
    assert not schema_of("cluster").is_valid({"extends": "base.yaml", **wrong})


@pytest.mark.parametrize(("kind", "path"), corpus("bad"))
def test_every_mistake_comes_with_a_way_out(kind: str, path: Path) -> None:
    _, faults = read(kind, path)
    assert [fault.message for fault in faults if not fault.fix] == []


def test_every_pattern_is_said_in_words() -> None:
    """Nobody is to read a regular expression to learn what belongs there."""
    said = json.dumps([model.model_json_schema() for model in MODELS.values()])
    unsaid = {json.loads(found) for found in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', said)} - PATTERNS.keys()
    assert unsaid == set()


def test_without_libyaml_the_same_files_are_good_and_bad() -> None:
    judge = (
        "import sys, yaml; yaml.__with_libyaml__ = False\n"
        "from pathlib import Path\n"
        "from reconciler.planning.yaml_text import read_yaml\n"
        "for name in sys.argv[1:]:\n"
        "    document = read_yaml(Path(name).read_bytes())\n"
        "    print(repr((document.value, bool(document.faults))))\n"
    )
    names = [str(path) for path in sorted(CORPUS.glob("*/*/*.yaml"))]
    done = subprocess.run([sys.executable, "-c", judge, *names], cwd=ROOT, capture_output=True, text=True, check=True)
    here = [read_yaml(Path(name).read_bytes()) for name in names]
    assert done.stdout.splitlines() == [repr((document.value, bool(document.faults))) for document in here]


def fields(schema: dict[str, Any]) -> set[str]:
    """Every field that the schema of cluster.yaml names."""
    found = set(schema.get("properties", {}))
    for definition in schema["$defs"].values():
        found |= set(definition.get("properties", {}))
    return found


def test_the_example_explains_every_field_there_is() -> None:
    example = (ROOT / "example-desired-state" / "cluster.yaml").read_text(encoding="utf-8")
    unexplained = [name for name in fields(published()["cluster.schema.json"]) if not re.search(rf"\b{name}:", example)]
    assert unexplained == []


def test_every_field_says_what_it_is_for() -> None:
    silent: list[str] = []
    for name, schema in published().items():
        for where, definition in {name: schema, **schema.get("$defs", {})}.items():
            silent += [
                f"{where}.{field}"
                for field, about in definition.get("properties", {}).items()
                if not {"description", "$ref", "const"} & set(about) and "$ref" not in json.dumps(about)
            ]
    assert silent == []
