"""Format 0.6.0: the deployments of an app, found in its code without running it."""

from __future__ import annotations

import pytest

from bioengine_runtime.contract.code import CodeError, read_class, requirements, resources
from bioengine_runtime.contract.composition import deployments
from bioengine_runtime.contract.manifest import AppManifest, EntryPoint

BASE = {"id": "a", "name": "a", "id_emoji": "x", "description": "", "type": "ray-serve"}
RUNTIME = "import bioengine\n@bioengine.app(num_cpus=1)\nclass {name}:\n    def __init__(self{more}): ...\n"


def entry(*imports: str, parameters: str) -> str:
    head = "\n".join(imports)
    return (
        f"{head}\nimport bioengine\n@bioengine.app()\nclass Entry:\n    def __init__(self, {parameters}): ...\n"
        "    @bioengine.method\n    async def ping(self): ...\n"
    )


def found(files: dict[str, str], ref: str = "entry:Entry") -> tuple[EntryPoint, ...]:
    manifest = AppManifest.model_validate({**BASE, "format_version": "0.6.0", "entry": ref})
    return deployments(manifest, files.get)


A = {"runtimes/a.py": RUNTIME.format(name="RuntimeA", more="")}


@pytest.mark.parametrize(
    ("line", "annotation"),
    [
        ("from runtimes.a import RuntimeA", "RuntimeA"),
        ("from runtimes.a import RuntimeA as A", "A"),
        ("import runtimes.a", "runtimes.a.RuntimeA"),
        ("from runtimes.a import RuntimeA", '"RuntimeA"'),
    ],
)
def test_a_class_in_an_annotation_is_a_deployment(line: str, annotation: str) -> None:
    source = entry(line, parameters=f"runtime_a: {annotation}, size: int = 3")
    assert found({"entry.py": source, **A}) == (
        EntryPoint("entry", "Entry", (("runtime_a", "RuntimeA"),)),
        EntryPoint("runtimes.a", "RuntimeA"),
    )


def test_the_graph_is_followed_and_every_class_is_there_once() -> None:
    b = "from runtimes.a import RuntimeA\n" + RUNTIME.format(name="RuntimeB", more=", a: RuntimeA")
    source = entry("from runtimes.a import RuntimeA", "from b import RuntimeB", parameters="b: RuntimeB, a: RuntimeA")
    points = found({"entry.py": source, "b.py": b, **A})
    assert [(point.class_name, point.handles) for point in points] == [
        ("Entry", (("b", "RuntimeB"), ("a", "RuntimeA"))),
        ("RuntimeB", (("a", "RuntimeA"),)),
        ("RuntimeA", ()),
    ]


def test_a_class_of_the_same_file_counts_and_others_do_not() -> None:
    helper = "class Plain: ...\n" + RUNTIME.format(name="Here", more="")
    source = helper + entry("import numpy", parameters="here: Here, plain: Plain, array: numpy.ndarray, n: int")
    assert found({"entry.py": source}) == (
        EntryPoint("entry", "Entry", (("here", "Here"),)),
        EntryPoint("entry", "Here"),
    )


def test_a_circle_ends() -> None:
    a = "from b import B\n" + RUNTIME.format(name="A", more=", b: B")
    b = "from a import A\n" + RUNTIME.format(name="B", more=", a: A")
    assert [point.class_name for point in found({"a.py": a, "b.py": b}, "a:A")] == ["A", "B"]


def test_two_classes_of_one_name_are_an_error() -> None:
    files = {"entry.py": entry("import a, b", parameters="one: a.Same, two: b.Same")}
    files |= {f"{name}.py": RUNTIME.format(name="Same", more="") for name in "ab"}
    with pytest.raises(CodeError, match=r"class Same is in a\.py and in b\.py"):
        found(files)


def test_flat_options_are_those_of_ray() -> None:
    source = (
        "import bioengine\nBYTES = 512\n"
        "@bioengine.app(num_cpus=2, memory_mb=BYTES, gpu_memory_mb=4000, pip=['pandas==2'], env_vars={'A': 'b'},\n"
        "               max_ongoing_requests=3, ray_actor_options={'num_cpus': 1})\n"
        "class Main:\n    @bioengine.method(context=True)\n    async def ping(self, context=None): ...\n"
    )
    facts = read_class(source, "main", "Main", "main.py")
    asked = resources(facts)
    assert (asked.num_cpus, asked.num_gpus, asked.memory) == (1, 1, 512 * 2**20)
    assert requirements(facts) == ("pandas==2",)
    assert facts.options["max_ongoing_requests"] == 3 and facts.methods == ("ping",)


def test_a_computed_option_is_unknown_under_rays_name() -> None:
    source = "import bioengine, os\n@bioengine.app(memory_mb=int(os.environ['M']))\nclass Main: ...\n"
    facts = read_class(source, "main", "Main", "main.py")
    assert facts.unknown == ("ray_actor_options.memory",)
    assert resources(facts).memory is None


PACKAGED = {f"demo/{path}": source for path, source in A.items()}


@pytest.mark.parametrize(
    ("line", "annotation"),
    [
        ("from .runtimes.a import RuntimeA", "RuntimeA"),
        ("from .runtimes import a", "a.RuntimeA"),
        ("from . import runtimes", "runtimes.a.RuntimeA"),
        ("from demo.runtimes.a import RuntimeA", "RuntimeA"),
    ],
)
def test_modules_of_a_package_find_each_other(line: str, annotation: str) -> None:
    files = {"demo/entry.py": entry(line, parameters=f"a: {annotation}"), **PACKAGED}
    assert found(files, "demo.entry:Entry") == (
        EntryPoint("demo.entry", "Entry", (("a", "RuntimeA"),)),
        EntryPoint("demo.runtimes.a", "RuntimeA"),
    )


def test_a_name_that_leads_out_of_the_folder_is_not_followed() -> None:
    files = {"demo/entry.py": entry("from ...a import RuntimeA", parameters="a: RuntimeA"), "a.py": A["runtimes/a.py"]}
    assert found(files, "demo.entry:Entry") == (EntryPoint("demo.entry", "Entry"),)


def test_a_class_may_come_through_the_init_of_its_folder() -> None:
    files = {"entry.py": entry("from runtimes import RuntimeA", parameters="a: RuntimeA"), **A}
    for line in ("from .a import RuntimeA", "from runtimes.a import RuntimeA"):
        assert found({**files, "runtimes/__init__.py": line})[1] == EntryPoint("runtimes.a", "RuntimeA")


def test_names_handed_round_in_a_circle_end() -> None:
    files = {
        "entry.py": entry("from a import X", parameters="x: X"),
        "a.py": "from b import X",
        "b.py": "from a import X",
    }
    assert found(files) == (EntryPoint("entry", "Entry"),)


def test_a_deployment_in_the_init_of_a_folder_is_told_with_the_way_out() -> None:
    files = {"entry.py": entry("from runtimes import RuntimeA", parameters="a: RuntimeA")}
    with pytest.raises(CodeError) as told:
        found({**files, "runtimes/__init__.py": A["runtimes/a.py"]})
    assert told.value.told() == (
        "RuntimeA is a deployment in runtimes/__init__.py, and a replica loads modules only; "
        "move it to a module beside it, and import it here"
    )


@pytest.mark.parametrize("broken", ["def f(:\n", "if 1:\n pass\n" + "elif 1:\n pass\n" * 2_500])
def test_a_broken_file_is_told_by_its_own_name(broken: str) -> None:
    files = {"entry.py": entry("from runtimes.a import RuntimeA", parameters="a: RuntimeA"), "runtimes/a.py": broken}
    with pytest.raises(CodeError) as told:
        found(files)
    assert told.value.filename == "runtimes/a.py" and told.value.told().startswith("runtimes/a.py:1: ")


def test_more_deployments_than_anybody_needs_are_refused() -> None:
    names = [f"C{number}" for number in range(40)]
    many = "\n".join(RUNTIME.format(name=name, more="").replace("import bioengine\n", "") for name in names)
    source = "import bioengine\n" + many + entry(parameters=", ".join(f"p{name}: {name}" for name in names))
    with pytest.raises(CodeError, match="more than 32 deployments"):
        found({"entry.py": source})
