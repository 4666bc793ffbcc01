"""From a source tree to what it asks for, and every way in which it may not say that clearly."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioengine_runtime.contract.app import Autoscaling, Rollout
from bioengine_runtime.contract.base import SecretFromEnv, SecretFromFile
from bioengine_runtime.contract.limits import MAX_FILES, MAX_FOLDER_BYTES
from reconciler.errors import InvalidDesiredState, SourceUnusable
from reconciler.planning.declare import RESERVED_IDS, UNKNOWN_WORKSPACE, declare
from reconciler.planning.desired import DesiredApp, DesiredState
from reconciler.planning.explain import excerpt, may_be_secret, pointer
from reconciler.planning.folder import twins
from reconciler.planning.problems import Location, Problem
from reconciler.planning.source import Blob, Folder, Revision, SourceTree
from reconciler.planning.yaml_text import read_yaml

COMMIT = "9c1e7d2" + "0" * 33
MANIFEST = """\
name: Demo
id: demo-app
id_emoji: "🔬"
description: A demo
type: ray-serve
version: 1.2.0
deployments: [main:Main]
authorized_users: [anna@example.org]
"""
CODE = """\
from hypha_rpc.utils.schema import schema_method
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 1, "runtime_env": {"pip": ["numpy==2.3.4"]}})
class Main:
    def __init__(self, path, size=1): ...

    @schema_method
    async def ping(self): ...

    @schema_method
    async def run(self): ...
"""
HELPER = """\
from ray import serve


@serve.deployment
class Helper:
    def __init__(self, size=2, tiles=3): ...
"""
PIPELINE = """\
from hypha_rpc.utils.schema import schema_method
from ray import serve


@serve.deployment
class Main:
    def __init__(self, helper, path="x"): ...

    @schema_method
    async def ping(self): ...
"""
DEMO = {"apps/demo-app/manifest.yaml": MANIFEST, "apps/demo-app/main.py": CODE}
COMPOSED = {
    "apps/demo-app/manifest.yaml": MANIFEST.replace("[main:Main]", "[main:Main, helper:Helper]"),
    "apps/demo-app/main.py": PIPELINE,
    "apps/demo-app/helper.py": HELPER,
}
NEEDED = "kwargs: {Main: {path: /data}}"


def an_oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def a_source(
    cluster: str | bytes | None,
    files: Mapping[str, str | bytes] = DEMO,
    *,
    refused: Mapping[str, str] | None = None,
    refused_in_app: Mapping[str, str] | None = None,
    commit: str = COMMIT,
) -> SourceTree:
    """A commit made of these files; ids depend on the content, as git's do."""
    store: dict[str, bytes] = {}

    def blob(content: str | bytes) -> Blob:
        data = content.encode() if isinstance(content, str) else content
        store[an_oid(data)] = data
        return Blob(an_oid(data), len(data))

    folders: dict[str, dict[str, Blob]] = {}
    for path, content in files.items():
        parts = path.split("/", 2)
        folders.setdefault("/".join(parts[:2]), {})[parts[2]] = blob(content)
    return SourceTree(
        revision=Revision("https://git.example/lab/apps", "main", commit, "Bump"),
        cluster_file=None if cluster is None else blob(cluster),
        folders={
            path: Folder(path, an_oid(repr((path, inner, refused_in_app)).encode()), inner, refused_in_app or {})
            for path, inner in folders.items()
        },
        read=store.__getitem__,
        refused=refused or {},
    )


def a_cluster(*instances: str, **others: str) -> str:
    """cluster.yaml with one app `demo` of these lines, and others by id."""
    lines = [
        "name: lab",
        "apps:",
        "  demo:",
        *(f"    {line}" for line in instances or ("source: apps/demo-app", NEEDED)),
    ]
    for app_id, fields in others.items():
        lines.append(f"  {app_id}: {fields}")
    return "\n".join(lines) + "\n"


def desired(*instances: str, files: Mapping[str, str | bytes] = DEMO, **others: str) -> DesiredState:
    return declare(a_source(a_cluster(*instances, **others), files), workspace="ws")


def demo(*fields: str, files: Mapping[str, str | bytes] = DEMO) -> DesiredApp:
    state = desired("source: apps/demo-app", *fields, files=files)
    assert state.broken == {}
    return state.apps["demo"]


def broken(*fields: str, files: Mapping[str, str | bytes] = DEMO, source: str = "apps/demo-app") -> tuple[Problem, ...]:
    state = desired(f"source: {source}", *fields, files=files)
    assert set(state.broken) == {"demo"}, "it must be broken, and nothing else"
    assert all(problem.app_id == "demo" for problem in state.broken["demo"])
    return state.broken["demo"]


def only(problems: tuple[Problem, ...]) -> Problem:
    (problem,) = problems
    return problem


def refusal(
    cluster: str | bytes | None, files: Mapping[str, str | bytes] = DEMO, **options: Any
) -> tuple[Problem, ...]:
    with pytest.raises(InvalidDesiredState) as caught:
        declare(a_source(cluster, files, **options))
    return caught.value.problems


# ── When all is well ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_spec_is_total() -> None:
    app = demo(NEEDED)
    tree = a_source(a_cluster()).folders["apps/demo-app"].tree
    assert app.spec.model_dump() == {
        "app_id": "demo",
        "artifact_id": "ws/demo-app",
        "version": f"1.2.0-g{tree[:12]}",
        "kwargs": {"Main": {"path": "/data"}},
        "env": {},
        "secrets": {},
        "authorized_users": ["anna@example.org"],
        "disable_gpu": False,
        "max_ongoing_requests": None,
        "max_queued_requests": None,
        "replicas": {},
        "autoscaling": {},
        "rollout": Rollout().model_dump(),
        "auto_redeploy": False,
        "debug": False,
        "ice_servers": [],
    }
    assert app.provenance.model_dump() == {
        "owner": "lab",
        "source": "https://git.example/lab/apps",
        "commit": COMMIT,
        "path": "apps/demo-app",
        "tree": tree,
        "digest": app.spec.digest(),
        "adopts": None,
        "by": None,
        "users_from_manifest": False,
    }
    assert app.where == Location("cluster.yaml", 3, 3)
    assert app.code is not None
    assert [facts.name for facts in app.code.classes] == ["Main"]


def test_an_artifact_from_elsewhere_is_taken_as_it_is() -> None:
    state = desired(other='{artifact: bioimage-io/model-runner, version: "0.5.2", kwargs: {"*": {a: 1}}}')
    spec = state.apps["other"].spec
    assert (spec.artifact_id, spec.version) == ("bioimage-io/model-runner", "0.5.2")
    assert spec.kwargs == {"*": {"a": 1}}
    assert spec.authorized_users == []
    assert state.apps["other"].code is None


@pytest.mark.parametrize(
    ("lines", "connected", "expected"),
    [
        ("", "ws", "ws/demo-app"),
        ("hypha: {workspace: lab}\n", None, "lab/demo-app"),
        ("hypha: {workspace: lab}\n", "ws", "ws/demo-app"),
        ("hypha: {workspace: lab}\n", UNKNOWN_WORKSPACE, "lab/demo-app"),
        ("", None, f"{UNKNOWN_WORKSPACE}/demo-app"),
    ],
)
def test_the_workspace_is_the_one_connected_to_or_else_the_one_named(
    lines: str, connected: str | None, expected: str
) -> None:
    state = declare(a_source(lines + a_cluster()), workspace=connected)
    assert state.apps["demo"].spec.artifact_id == expected


def test_plain_variables_and_secrets_part_and_the_underscore_is_dropped() -> None:
    app = demo(
        NEEDED,
        'env: {"*": {LEVEL: info, KEY: {env: LAB_KEY}}, Main: {_PASSWORD: {file: /run/p}}}',
        "hypha_token: {env: APP_TOKEN}",
    )
    assert app.spec.env == {"*": {"LEVEL": "info"}}
    assert app.spec.secrets == {"*": ["HYPHA_TOKEN", "KEY"], "Main": ["PASSWORD"]}
    assert app.secrets == {
        "*": {"HYPHA_TOKEN": SecretFromEnv(env="APP_TOKEN"), "KEY": SecretFromEnv(env="LAB_KEY")},
        "Main": {"PASSWORD": SecretFromFile(file="/run/p")},
    }


def test_where_a_secret_is_read_from_is_no_part_of_the_spec() -> None:
    first = demo(NEEDED, "hypha_token: {env: ONE}").spec
    assert first == demo(NEEDED, "hypha_token: {env: OTHER}").spec
    assert first != demo(NEEDED).spec


@pytest.mark.parametrize(
    ("instance", "manifest", "policy", "expected"),
    [
        ("[a]", "[b]", "[c]", ["a"]),
        (None, "[b]", "[c]", ["b"]),
        (None, None, "[c]", ["c"]),
        (None, None, None, []),
        ("[]", "[b]", "[c]", []),
        ("{ping: [a]}", "[b]", None, {"ping": ["a"]}),
    ],
)
def test_who_may_call_is_said_by_instance_then_manifest_then_policy(
    instance: str | None, manifest: str | None, policy: str | None, expected: Any
) -> None:
    line = "authorized_users: [anna@example.org]\n"
    files = {
        **DEMO,
        "apps/demo-app/manifest.yaml": MANIFEST.replace(line, f"authorized_users: {manifest}\n" if manifest else ""),
    }
    cluster = a_cluster("source: apps/demo-app", NEEDED, *([f"authorized_users: {instance}"] if instance else []))
    cluster += f"policy: {{default_authorized_users: {policy}}}\n" if policy else ""
    assert declare(a_source(cluster, files)).apps["demo"].spec.authorized_users == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("3", {"*": 3}), ("{Main: 2}", {"Main": 2}), ('{"*": 2, Main: 1}', {"*": 2, "Main": 1})]
)
def test_replicas_are_given_for_all_classes_or_for_each(text: str, expected: dict[str, int]) -> None:
    assert demo(NEEDED, f"replicas: {text}").spec.replicas == expected


@pytest.mark.parametrize(("text", "key"), [("{max_replicas: 3}", "*"), ("{Main: {max_replicas: 3}}", "Main")])
def test_autoscaling_is_given_for_all_classes_or_for_each(text: str, key: str) -> None:
    assert demo(NEEDED, f"autoscaling: {text}").spec.autoscaling == {key: Autoscaling(max_replicas=3)}


def test_kwargs_for_all_reach_the_classes_that_take_them_and_their_own_win() -> None:
    app = demo('kwargs: {"*": {size: 5, path: /all}, Helper: {size: 7}}', files=COMPOSED)
    assert app.spec.kwargs == {"Main": {"path": "/all"}, "Helper": {"size": 7}}


def test_handles_are_no_parameters_to_be_given() -> None:
    assert demo(files=COMPOSED).spec.kwargs == {}


def test_two_apps_may_share_a_folder() -> None:
    state = desired(second=f"{{source: apps/demo-app, {NEEDED}}}")
    assert state.apps["demo"].spec.version == state.apps["second"].spec.version
    assert state.apps["demo"].code == state.apps["second"].code


def test_a_folder_that_no_app_names_is_unused_and_not_judged() -> None:
    state = desired(files={**DEMO, "apps/draft/notes.txt": "x", "apps/another/manifest.yaml": "broken: ["})
    assert state.unused == ("apps/another", "apps/draft")
    assert state.broken == {}


def test_order_and_suspension_are_passed_on() -> None:
    state = desired(second=f"{{source: apps/demo-app, {NEEDED}, depends_on: [demo, demo], suspend: until Friday}}")
    assert state.apps["second"].depends_on == ("demo",)
    assert state.apps["second"].suspend == "until Friday"


def test_no_apps_at_all_can_be_said_but_only_in_so_many_words() -> None:
    assert declare(a_source("name: lab\napps: {}\n", {})).apps == {}
    assert "give it a value" in refusal("name: lab\napps:\n")[0].fix


def test_the_same_commit_is_declared_once() -> None:
    source = a_source(a_cluster())
    assert declare(source, workspace="ws") is declare(a_source(a_cluster()), workspace="ws")
    assert declare(source, workspace="ws") is not declare(source, workspace="other")


def test_another_commit_with_the_same_content_has_the_same_specs() -> None:
    first, second = declare(a_source(a_cluster())), declare(a_source(a_cluster(), commit="4" * 40))
    assert first.apps["demo"].spec == second.apps["demo"].spec
    assert second.apps["demo"].provenance.commit == "4" * 40


def test_any_file_of_a_folder_is_part_of_its_version() -> None:
    assert demo(NEEDED).spec.version != demo(NEEDED, files={**DEMO, "apps/demo-app/README.md": "x"}).spec.version


# ── A broken declaration is not a removal ──────────────────────────────────────────────────────────────────────────


def test_a_broken_folder_breaks_its_own_apps_and_nothing_else() -> None:
    files = {**DEMO, "apps/bad/manifest.yaml": "name: [\n", "apps/bad/main.py": CODE}
    state = desired(bad1="{source: apps/bad}", bad2="{source: apps/bad}", files=files)
    assert set(state.apps) == {"demo"}
    assert set(state.broken) == {"bad1", "bad2"}
    assert state.broken["bad2"][0].app_id == "bad2"
    assert len(state.problems) == 1, "one mistake is told once, however many apps it breaks"


def test_a_source_without_cluster_yaml_asks_for_nothing() -> None:
    with pytest.raises(SourceUnusable, match="nothing is changed or removed"):
        declare(a_source(None))


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.yml"])
def test_a_cluster_file_that_is_refused_is_told(name: str) -> None:
    problem = only(refusal(None, refused={name: "a symbolic link; links are never followed"}))
    assert problem.where == Location(name)
    assert problem.app_id is None


def test_everything_wrong_in_cluster_yaml_and_in_the_folders_is_told_at_once() -> None:
    files = {**DEMO, "apps/demo-app/main.py": "def f(:\n"}
    cluster = a_cluster("source: apps/demo-app", "replicsa: 2", "max_ongoing_requests: 0") + "polcy: {}\n"
    told = {(str(problem.where), problem.message) for problem in refusal(cluster, files)}
    assert told == {
        ("cluster.yaml:5:5", 'unknown field "replicsa"'),
        ("cluster.yaml:6:27", "max_ongoing_requests must be at least 1"),
        ("cluster.yaml:7:1", 'unknown field "polcy"'),
        ("apps/demo-app/main.py:1:7", "Python cannot read it: invalid syntax"),
    }


def test_sc_13_every_wrong_dependency_is_told_at_its_line() -> None:
    cluster = a_cluster(
        "source: apps/demo-app", "depends_on: [nobody, second]", second="{source: apps/demo-app, depends_on: [demo]}"
    )
    told = {(str(problem.where), problem.message) for problem in refusal(cluster)}
    assert told == {
        ("cluster.yaml:5:18", "demo depends on nobody, which this file does not name"),
        ("cluster.yaml:5:5", "depends_on goes round in a circle: demo → second → demo"),
    }


def test_a_long_chain_of_dependencies_is_no_trouble() -> None:
    many = {
        f"app-{n}": f"{{source: apps/demo-app, {NEEDED}, depends_on: [{f'app-{n - 1}' if n else 'demo'}]}}"
        for n in range(3000)
    }
    assert len(declare(a_source(a_cluster(**many))).apps) == 3001
    many["app-0"] = f"{{source: apps/demo-app, {NEEDED}, depends_on: [app-2999]}}"
    assert "circle" in refusal(a_cluster(**many))[0].message


def test_sc_09_a_problem_shows_its_line_its_place_and_the_way_out() -> None:
    problem = only(refusal(a_cluster("source: apps/demo-app", "replicsa: 2")))
    assert problem == Problem(
        where=Location("cluster.yaml", 5, 5),
        message='unknown field "replicsa"',
        fix='did you mean "replicas"?',
        excerpt="5 |     replicsa: 2\n  |     ^^^^^^^^",
        pointer="/apps/demo/replicsa",
        app_id=None,
    )


@pytest.mark.parametrize("password", ["open-sesame", "open-sesame" * 20])
def test_a_password_in_an_address_is_told_nowhere(password: str) -> None:
    """Caught: the message and its line of the file repeated it, in the comment on a merge request."""
    problem = only(refusal(a_cluster() + f'hypha: {{server_url: "https://anna:{password}@hypha.example"}}\n'))
    assert "https://*****@hypha.example" in problem.message and "https://*****@hypha.example" in problem.excerpt
    assert "open-sesame" not in repr(problem)


# ── Folders ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_folder_is_answered_with_the_nearest() -> None:
    problem = only(broken(source="apps/demo-ap"))
    assert problem.message == "no folder apps/demo-ap in main@sha1:9c1e7d2"
    assert problem.fix == 'did you mean "apps/demo-app"?'
    assert problem.where == Location("cluster.yaml", 4, 13)


def test_a_folder_that_is_a_link_or_a_submodule_is_told_as_such() -> None:
    source = a_source(
        a_cluster("source: apps/linked"), refused={"apps/linked": "a submodule; submodules are never fetched"}
    )
    assert only(declare(source).broken["demo"]).message == "apps/linked: a submodule; submodules are never fetched"


def test_refused_entries_of_a_folder_are_all_named() -> None:
    refused = {"b": "a symbolic link; links are never followed", "a/c": "a submodule; submodules are never fetched"}
    problems = declare(a_source(a_cluster(), refused_in_app=refused)).broken["demo"]
    assert [str(problem.where) for problem in problems] == ["apps/demo-app/a/c", "apps/demo-app/b"]


def test_a_file_whose_name_is_wrong_is_to_be_renamed() -> None:
    problem = only(declare(a_source(a_cluster(), refused_in_app={"caf\\xe9": "its name is not UTF-8"})).broken["demo"])
    assert problem.fix == "rename it"


def test_where_no_folder_is_it_is_told_that_one_belongs_there() -> None:
    problem = only(declare(a_source(a_cluster("source: apps/one"), {})).broken["demo"])
    assert problem.fix == "commit a folder of this name"


@pytest.mark.parametrize(
    ("files", "message", "fix"),
    [
        ({"main.py": CODE}, "no manifest.yaml", "add a manifest.yaml"),
        ({"main.py": CODE, "manifest.yml": MANIFEST}, "no manifest.yaml", "rename manifest.yml to manifest.yaml"),
        ({"manifest.yaml/x": "", "main.py": CODE}, "a folder, where the manifest should be", "make it a file"),
        ({"manifest.yaml": MANIFEST}, "no file main.py in apps/demo-app", "add it, or name another file"),
        ({"manifest.yaml": MANIFEST, "mian.py": CODE}, "no file main.py in apps/demo-app", 'did you mean "mian.py"?'),
        (
            {"manifest.yaml": MANIFEST, "main.py": CODE.replace("Main", "Mani")},
            "no class Main in main.py",
            'did you mean "Mani"?',
        ),
        ({"manifest.yaml": MANIFEST, "main.py": b"\xff"}, "not UTF-8", "save the file as UTF-8"),
        (
            {"manifest.yaml": MANIFEST, "main.py": "class Main: pass\n"},
            "class Main is not a Ray Serve deployment",
            "put @serve.deployment(...) (in format 0.6.0: @bioengine.app(...)) above it",
        ),
        (
            {"manifest.yaml": MANIFEST, "main.py": CODE.replace("    @schema_method\n", "")},
            "Main offers nothing to call",
            "put @schema_method (in format 0.6.0: @bioengine.method) above one of its methods",
        ),
        (
            {
                "manifest.yaml": MANIFEST + "frontend_entry: frontend/index.htm\n",
                "main.py": CODE,
                "frontend/index.html": "x",
            },
            "frontend_entry: no file 'frontend/index.htm' in apps/demo-app",
            'did you mean "frontend/index.html"?',
        ),
        (
            {"manifest.yaml": MANIFEST.replace("[anna@example.org]", "{pign: [a]}"), "main.py": CODE},
            "authorized_users: Main has no method pign",
            'did you mean "ping"?',
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_with_the_way_out(
    files: dict[str, str | bytes], message: str, fix: str
) -> None:
    problem = only(broken(NEEDED, files={f"apps/demo-app/{name}": content for name, content in files.items()}))
    assert (problem.message, problem.fix) == (message, fix)


def test_a_mistake_in_code_is_shown_where_it_is() -> None:
    problem = only(broken(NEEDED, files={**DEMO, "apps/demo-app/main.py": "import os\n\nclass Main\n    pass\n"}))
    assert problem.where == Location("apps/demo-app/main.py", 3, 11)
    assert problem.excerpt == "3 | class Main\n  |           ^"


def test_a_manifest_that_begins_with_a_byte_order_mark_is_read() -> None:
    files = {**DEMO, "apps/demo-app/manifest.yaml": b"\xef\xbb\xbf" + MANIFEST.encode()}
    assert demo(NEEDED, files=files).spec.artifact_id == "ws/demo-app"


@pytest.mark.parametrize("data", [MANIFEST.encode("utf-16"), b"name: \xff\n", b"a: 1\r\nb: \x80\r\n"])
def test_sc_08_a_manifest_that_is_not_utf8_is_told_where(data: bytes) -> None:
    problem = only(broken(NEEDED, files={**DEMO, "apps/demo-app/manifest.yaml": data}))
    assert problem.message == "not UTF-8"
    assert problem.where.line > 0


def test_sc_02_a_manifest_that_is_too_large_is_not_read() -> None:
    files = {**DEMO, "apps/demo-app/manifest.yaml": MANIFEST + "x: " + "a" * 1024 * 1024}
    assert only(broken(NEEDED, files=files)).message == "larger than 1024 KiB"


def test_an_lfs_pointer_is_not_taken_for_weights() -> None:
    content = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 123456\n"
    problem = only(broken(NEEDED, files={**DEMO, "apps/demo-app/model.pt": content}))
    assert problem.where.path == "apps/demo-app/model.pt"
    assert "Git LFS pointer" in problem.message


def test_a_folder_has_limits() -> None:
    source = a_source(a_cluster())
    folder = source.folders["apps/demo-app"]
    huge = {**folder.files, "big.bin": Blob("1" * 40, MAX_FOLDER_BYTES + 1)}
    many = {**folder.files, **{f"f{n}": Blob("1" * 40, 1) for n in range(MAX_FILES)}}
    for files, word in ((huge, "MiB of files"), (many, f"at most {MAX_FILES} are taken")):
        changed = Folder(folder.path, an_oid(word.encode()), files)
        tree = SourceTree(source.revision, source.cluster_file, {folder.path: changed}, source.read)
        assert word in only(declare(tree).broken["demo"]).message


@pytest.mark.parametrize(("first", "second"), [("Model.py", "model.py"), ("caf\u00e9", "cafe\u0301")])
def test_names_that_some_systems_cannot_tell_apart_are_refused(first: str, second: str) -> None:
    files = {**DEMO, f"apps/demo-app/{first}": "1", f"apps/demo-app/{second}": "2"}
    assert "are the same name on some systems" in only(broken(NEEDED, files=files)).message


def test_folders_that_differ_in_case_only_break_the_apps_that_use_them() -> None:
    files = {**DEMO, **{path.replace("demo-app/", "Demo-App/"): content for path, content in DEMO.items()}}
    state = desired(files=files)
    assert "apps/Demo-App and apps/demo-app" in state.broken["demo"][0].message


def test_one_name_has_no_twin() -> None:
    assert list(twins(["a", "b", "ab"])) == []


def test_two_folders_of_one_id_must_be_the_same_throughout() -> None:
    other = {f"apps/other/{path.rsplit('/', 1)[1]}": content for path, content in DEMO.items()}
    state = desired(second=f"{{source: apps/other, {NEEDED}}}", files={**DEMO, **other})
    assert set(state.broken) == {"demo", "second"}
    assert 'id "demo-app" is used by apps/demo-app and apps/other' in state.broken["demo"][0].message
    unused = desired(files={**DEMO, **other})
    assert unused.broken == {}, "a folder that nobody uses is in nobody's way"


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ("--extra-index-url http://evil", "is refused"),
        ("-r /etc/passwd", "is refused"),
        ("-e .", "is refused"),
        ("./local", "is refused"),
        ("x @ file:///etc", "is refused"),
        ("git+ssh://git@host/x", "is not valid"),
        ("x @ git+ssh://git@host/x", "is refused"),
        ("x @ http://host/x-1.0-py3-none-any.whl", "is refused"),
        ("--index-url=http://evil", "is refused"),
        ("-c /etc/passwd", "is refused"),
        ("humanize=4.13.0", "is not valid"),
        ("not a name", "is not valid"),
    ],
)
def test_sc_16_a_requirement_names_a_package_and_nothing_else(requirement: str, message: str) -> None:
    problem = only(broken(NEEDED, files={**DEMO, "apps/demo-app/main.py": CODE.replace("numpy==2.3.4", requirement)}))
    assert message in problem.message
    assert problem.where.path == "apps/demo-app/main.py"


@pytest.mark.parametrize(
    "requirement",
    [
        "numpy",
        "torch==2.7.0; python_version>'3'",
        "a[b]>=1,<2",
        "git+https://h/x@1",
        "x @ https://h/x-1-py3-none-any.whl",
    ],
)
def test_other_requirements_are_left_to_the_resolver(requirement: str) -> None:
    demo(NEEDED, files={**DEMO, "apps/demo-app/main.py": CODE.replace("numpy==2.3.4", requirement)})


def test_a_runtime_needs_a_parameter_of_the_entry() -> None:
    files = {**COMPOSED, "apps/demo-app/main.py": PIPELINE.replace("helper", "helpr")}
    problems = broken(files=files)
    assert problems[0].message == "Main.__init__ has no parameter helper to take the handle of Helper"
    assert problems[0].fix == 'did you mean "helpr"?'
    assert problems[0].where == Location("apps/demo-app/manifest.yaml", 7, 26)


# ── Instances ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "message", "fix"),
    [
        (["kwargs: {Mian: {path: x}}"], "kwargs: apps/demo-app has no deployment class Mian", 'did you mean "Main"?'),
        ([NEEDED, "env: {Mian: {A: b}}"], "env: apps/demo-app has no deployment class Mian", 'did you mean "Main"?'),
        (
            [NEEDED, "replicas: {Mian: 1}"],
            "replicas: apps/demo-app has no deployment class Mian",
            'did you mean "Main"?',
        ),
        (
            [NEEDED, "autoscaling: {Mian: {max_replicas: 2}}"],
            "autoscaling: apps/demo-app has no deployment class Mian",
            'did you mean "Main"?',
        ),
        (["kwargs: {Main: {path: x, siez: 1}}"], "Main.__init__ has no parameter siez", 'did you mean "size"?'),
        (['kwargs: {"*": {path: x, pth: 1}}'], "no class of this app takes pth", 'did you mean "path"?'),
        ([], "Main.__init__ needs path", "give it under kwargs: {Main: {path: …}}"),
        (
            [NEEDED, "authorized_users: {pign: [a]}"],
            "authorized_users: Main has no method pign",
            'did you mean "ping"?',
        ),
        (
            [NEEDED, 'env: {"*": {HYPHA_TOKEN: abc}}'],
            "HYPHA_TOKEN cannot be set through env",
            "give it as `hypha_token:` beside `env:`, as a secret reference",
        ),
        (
            [NEEDED, 'env: {"*": {_API_KEY: abc}}'],
            "_API_KEY marks a secret, and its value stands in git",
            "give it as a secret reference: API_KEY: {env: NAME} or {file: PATH}",
        ),
        (
            [NEEDED, 'env: {"*": {_KEY: {env: A}, KEY: {env: B}}}'],
            "_KEY and KEY are the same variable",
            "keep one of them",
        ),
    ],
)
def test_what_is_wrong_with_an_instance_is_said_with_the_way_out(fields: list[str], message: str, fix: str) -> None:
    problems = [problem for problem in broken(*fields) if problem.message == message]
    assert [problem.fix for problem in problems] == [fix]
    assert problems[0].where.path == "cluster.yaml"
    assert problems[0].where.line >= 3


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "PYTHONPATH",
        "PATH",
        "RAY_ADDRESS",
        "BIOENGINE_WORKER_SERVICE_ID",
        "HOME",
        "_LD_PRELOAD",
        "HYPHA_WORKSPACE",
    ],
)
@pytest.mark.parametrize("value", ["x", "{env: X}"])
def test_sc_15_variables_of_the_runtime_cannot_be_set(name: str, value: str) -> None:
    assert only(broken(NEEDED, f'env: {{"*": {{{name}: {value}}}}}')).message == f"{name} belongs to the runtime"


STATUS = ("reconcile-status", "reconcile-status-page", "reconcile-status-webhook")


@pytest.mark.parametrize(
    ("app_id", "hypha"),
    [
        *((app_id, "{}") for app_id in (*sorted(RESERVED_IDS), *STATUS)),
        *((app_id, "{status: lab-status}") for app_id in ("lab-status", "lab-status-page", STATUS[0])),
        ("our-worker", "{worker: our-worker}"),
        ("our-worker", "{worker: lab/client-1:our-worker}"),
    ],
)
def test_sc_12_names_of_the_system_are_no_app_ids(app_id: str, hypha: str) -> None:
    state = declare(a_source(f"name: lab\nhypha: {hypha}\napps:\n  {app_id}: {{source: apps/demo-app, {NEEDED}}}\n"))
    assert only(state.broken[app_id]).message == f'"{app_id}" is a name of the system itself'


def test_a_handle_is_not_given_by_hand() -> None:
    problem = only(broken("kwargs: {Main: {helper: x}}", files=COMPOSED))
    assert problem.message == "helper is the handle of another deployment"


def test_a_class_with_open_parameters_takes_anything() -> None:
    code = CODE.replace("path, size=1", "**anything")
    app = demo("kwargs: {Main: {whatever: 1}}", files={**DEMO, "apps/demo-app/main.py": code})
    assert app.spec.kwargs == {"Main": {"whatever": 1}}


def test_all_mistakes_of_an_instance_are_told_together() -> None:
    assert len(broken("kwargs: {Main: {a: 1, b: 2}}", "replicas: {X: 1}", 'env: {Y: {PATH: "1"}}')) == 6


# ── Secrets ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "cluster",
    [
        a_cluster("source: apps/demo-app", NEEDED, 'env: {"*": {_KEY: CANARY}}'),
        a_cluster("source: apps/demo-app", NEEDED, "env:", "  Main:", "    _KEY: CANARY"),
        a_cluster("source: apps/demo-app", NEEDED, "env:", "  Main:", "    HYPHA_TOKEN: CANARY"),
        a_cluster("source: apps/demo-app", NEEDED, "hypha_token: CANARY"),
        a_cluster("source: apps/demo-app", NEEDED, "hypha_token: [CANARY]"),
        a_cluster("source: apps/demo-app", NEEDED, "hypha_token:", "  CANARY"),
        a_cluster("source: apps/demo-app", NEEDED, "hypha_tokn: CANARY"),
        a_cluster("source: apps/demo-app", NEEDED, 'env: {"*": {PASSWORD: 12CANARY, 1: x}}'),
        "name: lab\nhypha:\n  token: CANARY\n",
        'name: lab\nhypha:\n  token: "CANARY\n',
        "name: lab\nhypha: {token: CANARY, tokn: 1}\n",
    ],
    ids=range(11),
)
def test_a_secret_that_stands_in_git_by_mistake_is_not_repeated(cluster: str) -> None:
    try:
        problems = declare(a_source(cluster)).problems
    except InvalidDesiredState as error:
        problems = error.problems
    assert problems
    assert "CANARY" not in repr(problems)


@pytest.mark.parametrize("name", ["_X", "HYPHA_TOKEN", "db_password", "API_KEY", "client-secret", "credentials"])
def test_such_names_may_hold_a_secret(name: str) -> None:
    assert may_be_secret(("apps", "x", "env", "*", name))


# ── YAML ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", "a"),
        ("1.2.3", "1.2.3"),
        ("10", 10),
        ("-7", -7),
        ("+7", 7),
        ("0", 0),
        ("0x1F", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("10.0.0.1:6379", "10.0.0.1:6379"),
        ("8080:80", "8080:80"),
        ("yes please", "yes please"),
        ("nothing", "nothing"),
        ("'no'", "no"),
        ('"1.10"', "1.10"),
        ("a&b", "a&b"),
        ("what!", "what!"),
        ("=", "="),
    ],
)
def test_sc_06_plain_words_are_read_as_editors_show_them(text: str, value: object) -> None:
    document = read_yaml(f"x: {text}\n".encode())
    assert document.faults == ()
    assert document.value == {"x": value}
    assert type(document.value["x"]) is type(value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "- " * 100_000, "{a: " * 10_000, "? " * 10_000, "&a [" * 1_000, "!t [" * 1_000]
)
def test_sc_03_a_text_made_to_exhaust_the_reader_ends_soon(text: str) -> None:
    started = time.process_time()
    assert read_yaml(text.encode()).faults
    assert time.process_time() - started < 2


@given(st.binary(max_size=200) | st.text(alphabet="ab:-?[]{}&*!|>'\"%@`#,\n\t 01~<=._", max_size=60).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_any_bytes_at_all_are_a_value_or_a_fault(data: bytes) -> None:
    document = read_yaml(data)
    for fault in document.faults:
        assert fault.message
        excerpt(document.text, fault.line, fault.column)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=15,
)


@given(json_values)
@settings(max_examples=300, deadline=None)
def test_json_is_read_as_json(value: object) -> None:
    document = read_yaml(json.dumps(value, ensure_ascii=False).encode())
    assert document.faults == ()
    assert document.value == value


def test_a_pointer_escapes_what_it_must() -> None:
    assert pointer(("apps", "a/b", "c~d", 0)) == "/apps/a~1b/c~0d/0"


def test_an_excerpt_cannot_play_tricks_with_a_terminal() -> None:
    assert all(line.isprintable() for line in excerpt("a: \x1b[31m\u202e", 1, 1).split("\n"))


def test_an_excerpt_of_a_long_line_shows_the_place() -> None:
    line, carets = excerpt("x" * 500 + "HERE" + "x" * 500, 1, 501, 4).split("\n")
    assert line[carets.index("^") : carets.index("^") + carets.count("^")] == "HERE"
    assert len(line) < 120


# ── Speed ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_thousand_apps_are_read_at_once_and_not_again() -> None:
    names = [f"app-{number}" for number in range(1000)]
    files: dict[str, str | bytes] = {}
    for name in names:
        files[f"apps/{name}/manifest.yaml"] = MANIFEST.replace("demo-app", name)
        files[f"apps/{name}/main.py"] = CODE
    source = a_source(
        "name: lab\napps:\n" + "".join(f"  {name}: {{source: apps/{name}, {NEEDED}}}\n" for name in names), files
    )
    started = time.process_time()
    first = declare(source)
    cold, started = time.process_time() - started, time.process_time()
    assert declare(source) is first
    warm = time.process_time() - started
    assert len(first.apps) == 1000
    assert cold < 4, "about 0.6 s on an idle machine, most of it Python's own parser"
    assert warm < 0.05, "about 1 ms on an idle machine"
