"""Variables are strict, and no templates (SC-14)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bioengine_runtime.contract.base import SecretFromFile
from bioengine_runtime.contract.limits import MAX_YAML_BYTES
from reconciler.planning.declare import parse_cluster
from reconciler.planning.variables import with_variables
from reconciler.planning.yaml_text import read_yaml
from tests.planning.test_overlay import parsed
from tests.planning.test_overlay import told as told_of_layers


def value(text: str, variables: str = "A: one, B: two") -> Any:
    document = with_variables(read_yaml(f"variables: {{{variables}}}\nx: {text}\n".encode()))
    assert document.faults == ()
    return document.value["x"]


def told(text: str) -> list[str]:
    document = with_variables(read_yaml(text.encode()))
    return [f"{fault.line}:{fault.column}: {fault.message} | {fault.fix}" for fault in document.faults]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "one"),
        ("a-${A}-${B}-${A}", "a-one-two-one"),
        ("'${A}'", "one"),
        ("[1, '${A}', {k: '${B}'}]", [1, "one", {"k": "two"}]),
        ("$A $ $$ {A}", "$A $ $$ {A}"),
        ("'$${A}'", "${A}"),
        ("'$$${A}'", "$${A}"),
        ('"\\x24{A}"', "one"),
        ("'{${A}: 1}'", "{one: 1}"),
        ("{'${A}': 1}", {"${A}": 1}),
        ("'${A} stays ${A} text'", "one stays one text"),
    ],
)
def test_sc_14_a_variable_is_its_text_in_values_and_nowhere_else(text: str, expected: Any) -> None:
    assert value(text) == expected


def test_sc_14_a_number_stays_a_text() -> None:
    assert value("'${N}'", "N: '3'") == "3"


def test_sc_14_what_is_not_defined_is_a_mistake_and_never_empty() -> None:
    text = "variables: {SITE: a}\nname: lab-${SIET}\napps: {a: {source: '${NOPE}'}}\n"
    assert told(text) == [
        '2:7: the variable SIET is not defined | did you mean "SITE"?',
        "3:20: the variable NOPE is not defined | known here: SITE",
    ]
    assert told("x: '${HOME}'\n") == [
        "1:4: the variable HOME is not defined | define it: variables: {HOME: …}; or write $${HOME}"
    ]


@pytest.mark.parametrize("text", ["${}", "${a b}", "${A", "${A-default}", "${${A}}", "${1}", "${ A }"])
def test_sc_14_what_only_looks_like_a_variable_is_told(text: str) -> None:
    assert "no ${NAME} follows" in told(f"variables: {{A: x}}\nx: '{text}'\n")[0]


def test_sc_14_variables_use_others_but_not_in_a_circle() -> None:
    assert value("'${C}'", "C: '${A}-${B}', A: one, B: '${A}2'") == "one-one2"
    assert told("variables: {A: '${B}', B: 'x${A}'}\n")[0].startswith(
        "1:27: variables go round in a circle: A → B → A |"
    )
    assert "circle: A → A" in told("variables: {A: '${A}'}\nx: '${A}'\n")[0]


def test_sc_14_nothing_is_expanded_in_secret_references() -> None:
    text = (
        "name: lab\nvariables: {A: one}\nhypha: {token: {env: TOKEN, file: '${A}'}}\napps:\n  a:\n    source: apps/a\n"
        "    hypha_token: {file: '/run/${A}'}\n    env: {'*': {KEY: {file: '${UNKNOWN}'}, PLAIN: '${A}'}}\n"
        "    kwargs: {Main: {file: '${A}', inner: {env: '${A}'}}}\n"
    )
    document = with_variables(read_yaml(text.encode()))
    assert document.faults == () and document.value["hypha"]["token"]["file"] == "${A}"
    cluster, _, faults = parse_cluster(text.replace("env: TOKEN, ", "").encode())
    assert cluster is not None and faults == []
    app = cluster.apps["a"]
    assert app.env == {"*": {"KEY": SecretFromFile(file="${UNKNOWN}"), "PLAIN": "one"}}
    assert app.hypha_token == SecretFromFile(file="/run/${A}")
    assert app.kwargs == {"Main": {"file": "one", "inner": {"env": "one"}}}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("{A: 1}", "A: expected a text, got 1"),
        ("{A: null}", "A: expected a text, got nothing"),
        ("{A: {B: c}}", "A: expected a text, got a mapping"),
        ("{a-b: c}", '"a-b" is not a valid name'),
        ("[A]", "variables: expected a mapping, got a list"),
    ],
)
def test_variables_are_texts_with_names(variables: str, message: str) -> None:
    _, _, faults = parse_cluster(f"name: lab\nvariables: {variables}\n".encode())
    assert [fault.message for fault in faults] == [message]


def test_a_cluster_overrides_the_variables_of_its_base() -> None:
    base = "variables: {SITE: dev, HOST: '${SITE}.example.org'}\nhypha: {server_url: 'https://${HOST}'}\n"
    top = "extends: base.yaml\nname: 'lab-${SITE}'\nvariables: {SITE: prod}\n"
    document, faults = parsed(top, base=base)
    assert faults == []
    assert (document.value["name"], document.value["hypha"]["server_url"]) == ("lab-prod", "https://prod.example.org")
    assert told_of_layers(top.replace("SITE: prod", "SIT: prod"), base=base.replace("SITE: dev, ", "")) == [
        "base.yaml:1:19: the variable SITE is not defined",
        "prod.yaml:2:7: the variable SITE is not defined",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "variables: {A: '" + "x" * 60_000 + "'}\nx: ['" + "${A}" * 50_000 + "']\n",
        "variables:\n  A0: xxxxxxxxxx\n"
        + "".join(f"  A{n}: '{f'${{A{n - 1}}}' * 10}'\n" for n in range(1, 40))
        + "x: '${A39}'\n",
        "variables:\n" + "".join(f"  A{n}: '${{A{n + 1}}}'\n" for n in range(3000)) + "  A3000: x\n",
    ],
    ids=["many", "doubling", "deep"],
)
def test_sc_14_variables_cannot_exhaust_the_reader(text: str) -> None:
    started = time.process_time()
    document = with_variables(read_yaml(text.encode()))
    assert document.faults and time.process_time() - started < 2
    assert len(str(document.value)) < 4 * MAX_YAML_BYTES
