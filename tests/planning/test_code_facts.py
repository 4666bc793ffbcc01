"""What is read of an app's code without running it."""

from __future__ import annotations

import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioengine_runtime.contract.code import (
    MAX_SOURCE_BYTES,
    ClassFacts,
    CodeError,
    Resources,
    read_class,
    requirements,
    resources,
    runtime_env,
)

HEAD = """
from ray import serve
from hypha_rpc.utils.schema import schema_method
"""


def facts(source: str, name: str = "Main", *, head: str = HEAD) -> ClassFacts:
    return read_class(head + textwrap.dedent(source), "main", name, "main.py")


def error(source: str, name: str = "Main", *, head: str = HEAD) -> CodeError:
    with pytest.raises(CodeError) as caught:
        facts(source, name, head=head)
    return caught.value


def options(arguments: str, *, before: str = "") -> ClassFacts:
    return facts(f"{before}\n@serve.deployment({arguments})\nclass Main: pass\n")


@pytest.mark.parametrize(
    "spelling",
    [
        "from ray import serve\n@serve.deployment\n",
        "from ray import serve\n@serve.deployment()\n",
        "from ray import serve as s\n@s.deployment()\n",
        "import ray\nimport ray.serve\n@ray.serve.deployment()\n",
        "import ray.serve as rs\n@rs.deployment()\n",
        "from ray.serve import deployment\n@deployment\n",
        "from ray.serve import deployment as d\n@d()\n",
        "from ray.serve import *\n@deployment()\n",
        "try:\n    from ray import serve\nexcept ImportError:\n    raise\n@serve.deployment\n",
    ],
)
def test_the_decorator_is_known_by_any_import(spelling: str) -> None:
    assert facts(spelling + "class Main: pass\n", head="").name == "Main"


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        "from other import deployment\n@deployment\n",
        "import other\n@other.thing()\n",
        "@(lambda c: c)\n",
        "@x[0]\n",
    ],
)
def test_a_class_without_the_decorator_is_no_deployment(spelling: str) -> None:
    found = error(spelling + "class Main: pass\n", head="")
    assert found.message == "class Main is not a Ray Serve deployment"
    assert found.line > 0
    assert "@serve.deployment" in found.fix


def test_a_misspelt_class_is_answered_with_the_right_one() -> None:
    found = error("@serve.deployment\nclass MyDeployment: pass\n", "MyDeploymnt")
    assert (found.message, found.fix) == ("no class MyDeploymnt in main.py", 'did you mean "MyDeployment"?')


def test_a_class_may_stand_under_if_and_try() -> None:
    assert facts(
        "try:\n    import x\nexcept ImportError:\n    x = None\nelse:\n    @serve.deployment\n    class Main: pass\n"
    )
    assert facts("if True:\n    pass\nelse:\n    @serve.deployment\n    class Main: pass\n")


def test_a_class_inside_a_function_is_not_the_apps() -> None:
    assert error("def f():\n    @serve.deployment\n    class Main: pass\n").message == "no class Main in main.py"


def test_a_syntax_error_has_its_position() -> None:
    found = error("class Main:\n    def f(:\n", head="")
    assert (found.line, found.column) == (2, 11)
    assert "Python cannot read it" in found.message and found.fix == "mend this line, or the one above it"


@pytest.mark.parametrize(
    ("source", "line", "message", "fix"),
    [
        ("x = 1\ny = '\0'\n", 2, "a null byte, which no Python file has", "save it as plain text"),
        (f"x = {'9' * 10_000}\n", 1, "a number of too many digits", "write it as a text"),
        ("x = " + "-" * 100_000 + "1\n", 1, "nested too deeply to be read", "divide it into several statements"),
    ],
)
def test_what_python_cannot_read_is_told_in_our_words_at_its_line(
    source: str, line: int, message: str, fix: str
) -> None:
    found = error(source, head="")
    assert (found.line, found.message, found.fix) == (line, message, fix) and found.column >= 1


def test_options_are_literals_constants_and_arithmetic() -> None:
    read = options(
        'ray_actor_options={"num_cpus": 1 / 2, "memory": 2 * GIB, "num_gpus": -1 + 2, "runtime_env": ENV},'
        'max_ongoing_requests=7 // 2, name="a" + NAME, flags=[True, None, (1, 2)]',
        before='GIB = 1024**3\nNAME: str = "b"\nPINS = ["numpy==1.26.4"]\nENV = {"pip": PINS + ["a==1"]}\n',
    )
    assert read.unknown == ()
    assert read.options == {
        "ray_actor_options": {
            "num_cpus": 0.5,
            "memory": 2 * 1024**3,
            "num_gpus": 1,
            "runtime_env": {"pip": ["numpy==1.26.4", "a==1"]},
        },
        "max_ongoing_requests": 3,
        "name": "ab",
        "flags": [True, None, [1, 2]],
    }


def test_only_the_computed_part_of_an_option_is_unknown() -> None:
    read = options('ray_actor_options={"num_cpus": 2, "runtime_env": make_env()}', before="import os\n")
    assert read.unknown == ("ray_actor_options.runtime_env",)
    assert read.options == {"ray_actor_options": {"num_cpus": 2}}


@pytest.mark.parametrize(
    "value",
    [
        "f()",
        'f"{1}"',
        'os.environ["X"]',
        "NOWHERE",
        "1 if True else 2",
        "[x for x in y]",
        "{**other}",
        "1 % 2",
        '"a" * 3',
        "b'x'",
        "9**9**9",
        "2**100000",
        "(-8) ** 0.5",
        "1e308 * 10 ** 300",
        "1e308 * 1e10",
        "1 // 0",
        "-'a'",
        "1j",
        "...",
        "lambda: 1",
        "True + True",
    ],
)
def test_sp_02_what_only_running_would_tell_is_unknown(value: str) -> None:
    assert options(f"x={value}").unknown == ("x",)


@pytest.mark.parametrize(
    "change", ["N = 2\n", "N += 1\n", "def f():\n    global N\n    N = 3\n", "if True:\n    N = 4\n", "del N\n"]
)
def test_a_name_that_is_set_more_than_once_is_no_constant(change: str) -> None:
    assert options("x=N", before="N = 1\n" + change).unknown == ("x",)


@pytest.mark.parametrize("change", ["L.append('b')\n", "L[0] = 'b'\n", "L += ['b']\n", "del L[0]\n", "L.extend(x)\n"])
def test_a_list_that_is_changed_is_no_constant(change: str) -> None:
    assert options("x=L", before="L = ['a']\n" + change).unknown == ("x",)


def test_constants_that_need_each_other_are_no_trap() -> None:
    assert options("x=A", before="A = B\nB = A\n").unknown == ("x",)


def test_options_spread_from_elsewhere_make_everything_uncertain() -> None:
    read = options("max_ongoing_requests=1, **MORE")
    assert read.unknown == ("**",)
    assert resources(read) == Resources(None, None, None)


def test_parameters_leave_self_out_and_know_what_is_required() -> None:
    read = facts(
        """
        @serve.deployment
        class Main:
            def __init__(self, a, /, b, c=1, *rest, d, e=2): ...
        """
    )
    assert read.parameters == ("a", "b", "c", "d", "e")
    assert read.required == ("a", "b", "d")
    assert not read.open_parameters


def test_a_class_that_takes_any_keyword_has_open_parameters() -> None:
    assert facts("@serve.deployment\nclass Main:\n    def __init__(self, **more): ...\n").open_parameters


def test_a_class_without_init_takes_nothing() -> None:
    read = facts("@serve.deployment\nclass Main: pass\n")
    assert (read.parameters, read.open_parameters) == ((), False)


def test_what_is_inherited_counts_and_what_comes_from_elsewhere_leaves_it_open() -> None:
    source = """
    class Base:
        def __init__(self, path): ...
        @schema_method
        def ping(self): ...

    @serve.deployment
    class Main({}):
        @schema_method
        async def run(self): ...
    """
    here = facts(source.format("Base"))
    assert (here.parameters, here.methods, here.open_methods) == (("path",), ("run", "ping"), False)
    elsewhere = facts(source.format("other.Base"))
    assert (elsewhere.open_parameters, elsewhere.methods, elsewhere.open_methods) == (True, ("run",), True)


@pytest.mark.parametrize(
    ("head", "decorator"),
    [
        ("from hypha_rpc.utils.schema import schema_method", "@schema_method"),
        ("from hypha_rpc.utils.schema import schema_method as api", "@api"),
        ("from hypha_rpc.utils.schema import schema_method", "@schema_method(arbitrary_types_allowed=True)"),
        ("from hypha_rpc.utils import schema", "@schema.schema_method"),
        ("import hypha_rpc.utils.schema", "@hypha_rpc.utils.schema.schema_method"),
    ],
)
def test_a_method_is_offered_by_any_spelling_of_its_decorator(head: str, decorator: str) -> None:
    body = f"class Main:\n    {decorator}\n    def ping(self): ...\n    def hidden(self): ...\n"
    source = f"{head}\nfrom ray import serve\n@serve.deployment\n{body}"
    assert read_class(source, "main", "Main", "main.py").methods == ("ping",)


def test_resources_have_the_defaults_of_ray_serve() -> None:
    assert resources(options("")) == Resources(1.0, 0.0, 0.0)
    asked = options('ray_actor_options={"num_cpus": 0, "num_gpus": 0.5, "memory": 1024}')
    assert resources(asked) == Resources(0.0, 0.5, 1024.0)
    assert resources(options('ray_actor_options={"num_cpus": f()}')).num_cpus is None


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("{}", ()),
        ('{"pip": ["a==1", "b==2"]}', ("a==1", "b==2")),
        ('{"pip": {"packages": ["a==1"], "pip_check": False}}', ("a==1",)),
        ('{"uv": ["a==1"]}', ("a==1",)),
        ('{"pip": "requirements.txt"}', None),
        ('{"pip": f()}', None),
        ('{"pip": ["a==1", f()]}', None),
        ("f()", None),
    ],
)
def test_requirements_are_read_from_every_form_of_runtime_env(env: str, expected: tuple[str, ...] | None) -> None:
    assert requirements(options(f'ray_actor_options={{"runtime_env": {env}}}')) == expected


def test_a_computed_environment_is_none_as_a_whole_but_its_requirements_may_be_known() -> None:
    read = options('ray_actor_options={"runtime_env": {"pip": ["a==1"], "env_vars": {"A": f()}}}')
    assert runtime_env(read) is None
    assert requirements(read) == ("a==1",)


@pytest.mark.parametrize(
    "source",
    [
        "(" * 10_000,
        "-" * 200_000 + "1",
        "+".join(["1"] * 100_000),
        "a." * 100_000 + "b",
        "[" * 90 + "1" + "]" * 90,
        "lambda:" * 5_000 + "1",
        "if 1:\n pass\n" + "elif 1:\n pass\n" * 2_500,
        "x = " + "9" * 5_000,
        "a\0b",
        "x = 1 " * 10_000,
        "#" + "x" * MAX_SOURCE_BYTES,
        "X = 2**200\n" + "".join(f"X{n} = X{n - 1 if n else ''} * X\n" for n in range(500)),
        "L = ['x']\n" + "".join(f"L{n} = L{n - 1 if n else ''} + L{n - 1 if n else ''}\n" for n in range(60)),
    ],
    ids=range(13),
)
def test_hostile_code_ends_soon_and_in_an_error(source: str) -> None:
    started = time.process_time()
    error(source, "Nobody")
    assert time.process_time() - started < 3


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_at_all_is_read_or_refused(text: str) -> None:
    try:
        read_class(text, "main", "Main", "main.py")
    except CodeError as found:
        assert found.line <= text.count("\n") + 1
