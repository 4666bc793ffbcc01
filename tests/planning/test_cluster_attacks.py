"""What a cluster.yaml may not do to its reader: SC-01 to SC-17, each refused in words and in no time."""

from __future__ import annotations

import time

import pytest

from bioengine_runtime.contract.app import AppSpec
from reconciler.planning.declare import declare, parse_cluster
from reconciler.planning.yaml_text import MAX_FAULTS, Fault, read_yaml
from tests.planning.test_desired import NEEDED, a_cluster, a_source, broken, demo, refusal


def faults(text: str | bytes) -> list[Fault]:
    started = time.process_time()
    cluster, _, found = parse_cluster(text if isinstance(text, bytes) else text.encode())
    assert (cluster is None) == bool(found)
    assert time.process_time() - started < 2 and len(found) <= MAX_FAULTS
    return found


def message(text: str | bytes) -> str:
    return " / ".join(fault.message for fault in faults(text))


def app(fields: str) -> str:
    return f"name: lab\napps:\n  a: {{source: apps/a, {fields}}}\n"


def test_sc_01_an_alias_bomb_is_refused_before_it_goes_off() -> None:
    bomb = "name: lab\na: &a [x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
    )
    assert "anchor &a" in message(bomb) and "alias *a" in message(bomb)


def test_sc_02_a_scalar_of_10_mb_is_not_read() -> None:
    assert message("name: " + "x" * 10_000_000) == "larger than 1024 KiB"


@pytest.mark.parametrize("text", ["[" * 10_000, "x: " + "{a: " * 10_000, "- " * 10_000])
def test_sc_03_depth_has_an_end(text: str) -> None:
    assert "nested deeper than 50 levels" in message(text) or "not valid YAML" in message(text)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!x", "!!binary", "!!str"]
)
def test_sc_04_tags_are_refused_by_name(tag: str) -> None:
    assert f"tag {tag}" in message(f"name: {tag} lab\n")


def test_sc_05_a_key_given_twice_is_a_mistake() -> None:
    assert message("name: lab\nname: other\n") == 'key "name" is given twice, first in line 1'
    assert message(app("env: {Main: {A: x, 'A': y}}")) == 'key "A" is given twice, first in line 3'


@pytest.mark.parametrize("word", ["no", "yes", "on", "Off", "0o17", "017", "1_000", "4:00:00", "0b11"])
def test_sc_06_words_that_readers_take_for_different_things_are_refused(word: str) -> None:
    assert "means different things" in message(f"name: lab\nhypha: {{workspace: {word}}}\n")


@pytest.mark.parametrize("written", ["1.10", "12", "true", "null"])
def test_sc_06_where_a_text_is_expected_nothing_is_guessed(written: str) -> None:
    (fault,) = faults(f"name: lab\nhypha: {{status: {written}}}\n")
    assert "expected a text" in fault.message


def test_sc_07_one_document_and_no_more() -> None:
    assert "another document" in message("name: lab\n---\nname: other\n")


@pytest.mark.parametrize("data", ["name: lab\n".encode("utf-16"), b"name: \xff\n", b"\xff\xfen\x00"])
def test_sc_08_other_encodings_are_told_and_never_guessed(data: bytes) -> None:
    assert message(data) == "not UTF-8"


def test_sc_08_a_byte_order_mark_is_no_mistake_and_a_tab_is() -> None:
    assert faults(b"\xef\xbb\xbfname: lab\n") == []
    assert "cannot start any token" in message("name: lab\npolicy:\n\tprune: true\n")


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        (app("replicsa: 2"), '"replicas"'),
        ("name: lab\npolcy: {}\n", '"policy"'),
        ("name: lab\nextend: base.yaml\n", '"extends"'),
        ("name: lab\nvariable: {}\n", '"variables"'),
    ],
)
def test_sc_09_an_unknown_field_is_told_with_a_guess(text: str, guess: str) -> None:
    (fault,) = faults(text)
    assert fault.message.startswith("unknown field") and guess in fault.fix


@pytest.mark.parametrize("number", [".nan", ".NaN", ".inf", "-.inf", "+.Inf"])
def test_sc_10_what_is_no_number_is_refused(number: str) -> None:
    assert f"{number} is not a number that can be passed on" in message(app(f"kwargs: {{Main: {{x: {number}}}}}"))


@pytest.mark.parametrize("number", [str(2**63), str(-(2**63)), "9" * 400, "1e999", "-1e999", "0x8000000000000000"])
def test_sc_10_numbers_that_others_cannot_hold_are_refused(number: str) -> None:
    assert "the number is too large" in message(app(f"kwargs: {{Main: {{x: {number}}}}}"))


@pytest.mark.parametrize(("written", "number"), [("-0", 0), ("-0.0", 0.0), (str(2**63 - 1), 2**63 - 1)])
def test_sc_10_numbers_at_the_edge_are_what_they_are(written: str, number: float) -> None:
    assert read_yaml(f"x: {written}\n".encode()).value == {"x": number}
    assert "at least 1" in message(app("replicas: -0"))


@pytest.mark.parametrize(
    "text", ["x: &a 1\ny: *a\n", "base: &b {a: 1}\nname: {<<: *b}\n", "name: lab\npolicy: {<<: {prune: true}}\n"]
)
def test_sc_11_anchors_and_merge_keys_are_refused(text: str) -> None:
    assert any(word in message(text) for word in ("anchor", "alias", "merge key"))


@pytest.mark.parametrize(
    "app_id",
    [
        *("", "a" * 64, "a" * 1_000, "../x", "a/b", "a:b", "*", "A", "1a", "-app", "a_b", "a.b", "a b", "a\\n", "."),
        *("аpp", "ａｐｐ", "app\\u200b", "app\\u0000", "App", "é"),
    ],
)
def test_sc_12_an_app_id_has_one_shape(app_id: str) -> None:
    found = faults(f'name: lab\napps:\n  "{app_id}": {{source: apps/a}}\n')
    assert found and "letters, digits and hyphens" in found[0].fix, found


@pytest.mark.parametrize("app_id", ["a", "a" * 63, "a-1", "null-app"])
def test_sc_12_an_app_id_at_the_limits_is_fine(app_id: str) -> None:
    assert faults(f"name: lab\napps:\n  {app_id}: {{source: apps/a}}\n") == []


def test_sc_12_ids_that_are_the_same_are_one_key_twice() -> None:
    assert "given twice" in message("name: lab\napps:\n  a: {source: apps/a}\n  'a': {source: apps/b}\n")


@pytest.mark.parametrize(
    ("needed", "words"),
    [("[demo]", "demo → demo"), ("[nobody]", "does not name"), ("[second]", "demo → second → demo")],
)
def test_sc_13_dependencies_on_oneself_on_nobody_and_in_a_circle(needed: str, words: str) -> None:
    second = "{source: apps/demo-app, depends_on: [demo]}"
    found = refusal(a_cluster("source: apps/demo-app", f"depends_on: {needed}", second=second))
    assert any(words in problem.message for problem in found)


def test_sc_13_a_suspended_app_can_be_depended_on() -> None:
    second = f"{{source: apps/demo-app, {NEEDED}, depends_on: [demo]}}"
    text = a_cluster("source: apps/demo-app", NEEDED, "suspend: true", second=second)
    assert declare(a_source(text)).apps["second"].depends_on == ("demo",)


@pytest.mark.parametrize("key", ['"A=B"', '"A\\0B"', '"A\\nB"', '""', '"A B"', "1A", "A-B", "'*'"])
def test_sc_15_a_variable_has_a_plain_name(key: str) -> None:
    found = faults(app(f"env: {{Main: {{{key}: x}}}}"))
    assert any("letters, digits and underscores" in fault.fix or "quote it" in fault.fix for fault in found), found


@pytest.mark.parametrize("name", ["HYPHA_TOKEN", "_HYPHA_TOKEN"])
def test_sc_15_the_token_is_not_set_as_a_variable(name: str) -> None:
    problems = broken(NEEDED, f"env: {{Main: {{{name}: {{env: X}}}}}}")
    assert problems[0].message == f"{name} cannot be set through env"


@pytest.mark.parametrize("name", ["RAY_x", "BIOENGINE_", "LD_AUDIT", "PYTHONHOME", "_PATH", "TMPDIR"])
def test_sc_15_what_the_runtime_lives_by_is_not_set_from_git(name: str) -> None:
    assert broken(NEEDED, f"env: {{Main: {{{name}: x}}}}")[0].message == f"{name} belongs to the runtime"


@pytest.mark.parametrize("pointer", ["(a+)+$", ".spec | .env", "env", "/a~2", "", "**", "/a~"])
def test_sc_17_what_may_differ_is_named_by_pointers_and_no_pattern_is_run(pointer: str) -> None:
    assert faults(app(f'ignore: ["{pointer}"]'))


def test_sc_17_a_long_pointer_is_judged_at_once() -> None:
    assert faults(app(f'ignore: ["{"/a" * 100_000}~"]'))
    named = ("/env/*/MODE", "/rollout/probe/args/a~1b/~0")
    assert demo(NEEDED, f'ignore: ["{named[0]}", "{named[1]}"]').ignore == named


@pytest.mark.parametrize(
    ("pointer", "message", "fix"),
    [
        ("/max_ongoing_request", '"max_ongoing_request" in an app', 'did you mean "max_ongoing_requests"?'),
        ("/kwarg/Main", '"kwarg" in an app', 'did you mean "kwargs"?'),
        ("/env/MODE", '"MODE" in /env', "known here: "),
        ("/rollout/prob", '"prob" in /rollout', 'did you mean "probe"?'),
        ("/ice_servers/0/url", '"url" in /ice_servers/0', 'did you mean "urls"?'),
        ("/secrets/*/TOKEN", '"TOKEN" in /secrets/*', "end it there: /secrets/*"),
        ("/debug/x", '"x" in /debug', "end it there: /debug"),
    ],
)
def test_a_pointer_to_nothing_that_an_app_has_is_no_silence(pointer: str, message: str, fix: str) -> None:
    """Caught: a typo that was taken, so that what was to be left alone was healed."""
    (found,) = broken(NEEDED, f'ignore: ["{pointer}"]')
    assert message in found.message and fix in found.fix and found.where.line > 1


@pytest.mark.parametrize(
    "pointer",
    [
        *(f"/{name}" for name in AppSpec.model_fields),
        *("/kwargs/*/size", "/replicas/*", "/autoscaling/*/max_replicas", "/rollout/probe/expected/x/0"),
        *("/authorized_users/0", "/authorized_users/ping/0", "/ice_servers/0/urls/1", "/secrets/*/0"),
    ],
)
def test_a_pointer_to_what_some_spec_has_is_taken(pointer: str) -> None:
    assert demo(NEEDED, f'ignore: ["{pointer}"]').ignore == (pointer,)


@pytest.mark.parametrize("class_name", ["Main", '"*"'])
def test_ss_08_a_hidden_value_is_not_taken_for_a_value(class_name: str) -> None:
    (problem,) = broken(NEEDED, f'env: {{{class_name}: {{MODE: "*****"}}}}')
    assert problem.message == "MODE is *****, which stands where a value was hidden"
