"""Looking at an app's code in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.apps.describing import Description, Request
from bioengine_runtime.apps.zygote import describe_in_child

HEAD = """
import os, sys
from hypha_rpc.utils.schema import schema_method
from pydantic import Field
from ray import serve
from ray.serve.handle import DeploymentHandle

"""
PLAIN = (
    HEAD
    + """
@serve.deployment(ray_actor_options={"num_cpus": 0.5, "runtime_env": {"pip": ["a==1"]}}, max_ongoing_requests=3)
class Main:
    def __init__(self, model: str, size: float = 1.0, sub: DeploymentHandle = None): ...

    @schema_method
    async def ping(self, name: str = Field("you", description="Whom")) -> dict:
        "Say hello."

    def internal(self): ...
"""
)


def look(folder: Path, source: str, **fields: Any) -> Description:
    (folder / "main.py").write_text(source)
    request = {"code": str(folder), "layer": None, "module": "main", "class_name": "Main", "kwargs": {"model": "m"},
               "handles": [], "entry": True, "environment": {}, **fields}  # fmt: skip
    return describe_in_child(Request(**request))


def test_options_and_schemas_come_from_the_code(tmp_path: Path):
    found = look(tmp_path, PLAIN, kwargs={"model": "m", "size": 2}, handles=["sub"])
    assert found["problem"] == ""
    assert found["options"] == {
        "max_ongoing_requests": 3,
        "ray_actor_options": {"num_cpus": 0.5, "runtime_env": {"pip": ["a==1"]}},
    }
    assert [method["name"] for method in found["methods"]] == ["ping"]
    assert found["methods"][0]["schema"]["description"] == "Say hello."
    assert found["methods"][0]["schema"]["parameters"]["properties"]["name"]["description"] == "Whom"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"kwargs": {"model": "m", "sise": 1}},
            'Main.__init__ has no parameter "sise"; it takes model, size, sub; did you mean "size"?',
        ),
        ({"kwargs": {"model": "m", "q": 1}}, 'no parameter "q"; it takes model, size, sub'),
        ({"kwargs": {"model": "m", "sub": 1}, "handles": ["sub"]}, '"sub" is the handle of another deployment'),
        ({"kwargs": {}}, 'Main.__init__ needs a value for "model"'),
        ({"kwargs": {"model": "m", "size": "wide"}}, 'parameter "size": Input should be a valid number'),
        ({"kwargs": {"model": 3, "size": True}}, 'parameter "model": Input should be a valid string'),
        ({"kwargs": {"model": "m", "size": "1.5"}}, 'parameter "size": Input should be a valid number'),
        ({"handles": ["other"]}, 'needs a parameter "other: DeploymentHandle" for the deployment in other.py'),
        ({"class_name": "Nobody"}, "main.py has no class Nobody"),
        ({"module": "absent"}, "the app has no file absent.py"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, fields: dict[str, Any], problem: str):
    assert problem in look(tmp_path, PLAIN, **fields)["problem"]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import nothing_like_it\n", "main.py:1: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("x = (\n", "main.py:1: SyntaxError"),
        ("raise SystemExit(3)\n", "main.py:1: SystemExit: 3"),
        ("print('on my way')\n1 / 0\n", "main.py:2: ZeroDivisionError: division by zero\nit printed:\non my way"),
        ("import os\nos._exit(7)\n", "importing it ended its process"),
        (HEAD + "class Main: ...\n", "not a class decorated with @serve.deployment"),
        (HEAD + "@serve.deployment\nclass Main: ...\n", "no @schema_method"),
        (
            HEAD + "@serve.deployment\nclass Main:\n    def run(self): ...\n    run.__schema__ = {'parameters': 1}\n",
            "Main.run: the parameters of its schema must be a mapping, not int",
        ),
    ],
)
def test_what_breaks_is_told_with_its_place(tmp_path: Path, source: str, problem: str):
    """RO-01."""
    assert problem in look(tmp_path, source, kwargs={})["problem"]


def test_nothing_of_ours_is_in_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret-token")
    source = (
        "import os, ray\nray.init()\nraise RuntimeError(f\"{'RAY_AUTH_TOKEN' in os.environ} {ray.is_initialized()}\")"
    )
    assert "RuntimeError: False False" in look(tmp_path, source)["problem"]


def test_one_look_leaves_nothing_for_the_next(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    look(tmp_path / "a", "import sys\nsys.modules['json'] = None\nraise ValueError('first')")
    (tmp_path / "a" / "helper.py").write_text("NAME = 'a'")
    (tmp_path / "b" / "helper.py").write_text("NAME = 'b'")
    for name in ("a", "b"):
        found = look(tmp_path / name, "import helper\nraise ValueError(helper.NAME)")
        assert found["problem"].endswith(f"ValueError: {name}")


def test_a_file_may_be_called_like_a_module_of_pythons(tmp_path: Path):
    (tmp_path / "types.py").write_text(PLAIN)
    assert look(tmp_path, "", module="types")["problem"] == ""


TYPED = (
    "from __future__ import annotations\n"
    + HEAD
    + """
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TYPE_CHECKING, Union
if TYPE_CHECKING:
    from nowhere import Image
@serve.deployment
class Main:
    def __init__(
        self, sub: DeploymentHandle, share: float = 0.5, names: Optional[list[str]] = None,
        size: Union[int, tuple[int, int]] = 1, mode: Literal["fast", "good"] = "fast", table: dict[str, float] = {},
        image: Image = None, more: Annotated[int, Field(ge=2)] = 2, either: "int | None" = None, untyped=None,
        path: Path = Path(), anything: Any = None,
    ): ...
    @schema_method
    async def ping(self): ...
"""
)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"share": 1},
        {"names": None, "size": [1, 2], "mode": "good"},
        {"names": ["a"], "size": 3, "table": {"a": 1}},
        {"image": "unresolved", "untyped": [1], "either": None, "path": "/data", "anything": {"a": [1]}},
    ],
)
def test_an_annotation_of_any_kind_takes_what_it_says(tmp_path: Path, kwargs: dict[str, Any]):
    """The reference compared with isinstance: an int was no float, and Optional, Union and Literal were crashes."""
    assert look(tmp_path, TYPED, kwargs=kwargs, handles=["sub"])["problem"] == ""


@pytest.mark.parametrize(
    ("kwargs", "parameter"),
    [
        ({"share": "half"}, "share"),
        ({"names": [1]}, "names"),
        ({"size": [1, 2, 3]}, "size"),
        ({"mode": "slow"}, "mode"),
        ({"table": {"a": "b"}}, "table"),
        ({"more": 1}, "more"),
        ({"either": "x"}, "either"),
    ],
)
def test_a_postponed_annotation_is_checked_though_another_does_not_resolve(
    tmp_path: Path, kwargs: dict[str, Any], parameter: str
):
    """The reference skipped every check under `from __future__ import annotations`."""
    assert (
        f'Main.__init__, parameter "{parameter}": ' in look(tmp_path, TYPED, kwargs=kwargs, handles=["sub"])["problem"]
    )


def test_a_method_that_declares_the_context_says_so_in_its_schema(tmp_path: Path):
    method = "    @schema_method\n    async def who(self, context: dict = None): ...\n"
    found = look(tmp_path, TYPED + method, kwargs={}, handles=["sub"])
    schemas = {one["name"]: one["schema"]["parameters"].get("properties", {}) for one in found["methods"]}
    assert "context" in schemas["who"] and "context" not in schemas["ping"]
