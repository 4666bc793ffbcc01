"""`import bioengine` as apps of format 0.6.0 write it, looked at in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.apps.describing import Request
from bioengine_runtime.apps.handles import RuntimeHandle
from bioengine_runtime.apps.zygote import describe_in_child
from tests.runtime.apps_world import FIXTURES


def look(code: Path, module: str, class_name: str, **fields: Any) -> Any:
    request = {"code": str(code), "layer": None, "module": module, "class_name": class_name, "kwargs": {},
               "handles": [], "entry": True, "environment": {}, **fields}  # fmt: skip
    return describe_in_child(Request(**request))


def test_an_annotated_app_is_described_as_any_other():
    found = look(FIXTURES / "annotated", "entry", "Entry", handles=["words"], kwargs={"mark": "?"})
    assert found["problem"] == ""
    assert found["options"]["max_ongoing_requests"] == 7
    assert found["options"]["ray_actor_options"] == {"num_cpus": 0, "memory": 64 * 2**20}
    assert [method["name"] for method in found["methods"]] == ["greet", "whoami"]
    properties = {one["name"]: one["schema"]["parameters"]["properties"] for one in found["methods"]}
    assert properties["greet"]["name"]["description"] == "Whom."
    assert "context" in properties["whoami"]
    assert found["multiplexed"]


def test_a_module_in_a_folder_is_found():
    found = look(FIXTURES / "annotated", "parts.words", "Words", entry=False)
    assert found["problem"] == ""


def test_a_folder_named_like_an_installed_package_says_so(tmp_path: Path):
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "entry.py").write_text("")
    assert "installed package" in look(tmp_path, "yaml.entry", "Entry")["problem"]


@pytest.mark.parametrize("name", ["async_init", "test_deployment", "check_health"])
def test_reserved_names_are_refused_with_the_way_out(tmp_path: Path, name: str):
    (tmp_path / "main.py").write_text(
        f"import bioengine\n@bioengine.app()\nclass Main:\n    async def {name}(self): ...\n"
    )
    assert f"Main.{name}: choose another name" in look(tmp_path, "main", "Main")["problem"]


def test_an_app_may_bring_a_bioengine_of_its_own(tmp_path: Path):
    (tmp_path / "bioengine.py").write_text("MINE = True\n")
    (tmp_path / "main.py").write_text(
        "import bioengine\nfrom ray import serve\nfrom hypha_rpc.utils.schema import schema_method\n"
        "@serve.deployment\nclass Main:\n    assert bioengine.MINE\n    @schema_method\n    async def ping(self): ...\n"
    )
    assert look(tmp_path, "main", "Main")["problem"] == ""


def test_the_helpers_of_the_older_format_are_there(tmp_path: Path):
    (tmp_path / "main.py").write_text(
        "from bioengine import __version__\n"
        "from bioengine.utils import create_logger, create_file_list_from_directory\n"
        "from bioengine.datasets import BioEngineDatasets\nfrom ray import serve\n"
        "from hypha_rpc.utils.schema import schema_method\n"
        "assert create_logger('x') is create_logger('x') and __version__\n"
        "files = create_file_list_from_directory(__file__.rsplit('/', 1)[0])\n"
        "assert [one['name'] for one in files] == ['main.py'] and files[0]['type'] == 'text'\n"
        "BioEngineDatasets(data_server_url='auto', hypha_token=None)\n"
        "@serve.deployment\nclass Main:\n    @schema_method\n    async def ping(self): ...\n"
    )
    assert look(tmp_path, "main", "Main")["problem"] == ""


HEAD = "import bioengine\n@bioengine.app()\nclass Main:\n    @bioengine.method\n    async def ping(self): ...\n"


def look_at(folder: Path, source: str, **fields: Any) -> Any:
    (folder / "main.py").write_text(source)
    return look(folder, "main", "Main", **fields)


def test_arrays_are_parameters_of_methods_as_they_are(tmp_path: Path):
    method = "    @bioengine.method\n    async def infer(self, image: np.ndarray, size: int = 1): ...\n"
    found = look_at(tmp_path, "import numpy as np\n" + HEAD + method)
    assert found["problem"] == ""
    assert set(found["methods"][1]["schema"]["parameters"]["properties"]) == {"image", "size"}


def test_a_method_that_wants_the_context_must_take_it(tmp_path: Path):
    method = "    @bioengine.method(context=True)\n    async def whoami(self): ...\n"
    assert (
        "main.py:6: TypeError: Main.whoami is to be given who calls, but has no parameter `context`"
        in (look_at(tmp_path, HEAD + method)["problem"])
    )


def test_two_methods_with_one_task_are_refused(tmp_path: Path):
    hooks = "".join(f"    @bioengine.smoke_test\n    async def {name}(self): ...\n" for name in ("one", "two"))
    assert "Main.one and .two are both test_deployment" in look_at(tmp_path, HEAD + hooks)["problem"]


def test_a_task_may_be_done_by_a_method_of_a_base_class(tmp_path: Path):
    base = "import bioengine\nclass Base:\n    @bioengine.async_init\n    async def warm_up(self): ...\n"
    check = "assert Main.func_or_class.async_init is Base.warm_up\n"
    assert look_at(tmp_path, base + HEAD.replace("Main:", "Main(Base):") + check)["problem"] == ""


def test_requirements_may_be_read_from_a_file_beside_the_code(tmp_path: Path):
    (tmp_path / "requirements-main.txt").write_text("pandas==2.2.3\n")
    read = "from pathlib import Path\ndef pip(n): return (Path(__file__).parent / n).read_text().split()\n"
    source = read + HEAD.replace("app()", 'app(pip=pip("requirements-main.txt"))')
    options = look_at(tmp_path, source)["options"]
    assert options["ray_actor_options"]["runtime_env"] == {"pip": ["pandas==2.2.3"]}


class Recorded:
    """Stands for Serve's handle and for one of its methods."""

    def __init__(self, *path: Any):
        self.path = path

    def __getattr__(self, name: str) -> Any:
        return Recorded(*self.path, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Recorded(*self.path, args, kwargs)


def test_a_handle_is_called_as_written_and_as_serve_would_have_it():
    handle = RuntimeHandle(Recorded())
    assert handle.ping(1, a=2).path == ("ping", "remote", (1,), {"a": 2})
    assert handle.ping.remote(1).path == ("ping", "remote", (1,), {})
    streaming = handle.count.options(stream=True)
    asked = ("count", "options", (), {"stream": True}, "remote", (3,), {})
    assert streaming(3).path == asked == streaming.remote(3).path
    assert handle._raw.path == ()
    with pytest.raises(AttributeError):
        _ = handle._secret


def test_what_is_no_handle_is_checked_beside_one_that_is():
    found = look(FIXTURES / "annotated", "entry", "Entry", handles=["words"], kwargs={"mark": 3})
    assert found["problem"] == 'Entry.__init__, parameter "mark": Input should be a valid string'


def test_the_formats_own_defaults_and_older_names_hold(tmp_path: Path):
    scaling = "autoscaling_config={'max_replicas': 3, 'target_num_ongoing_requests_per_replica': 7.0}"
    options = look_at(tmp_path, HEAD.replace("app()", f"app({scaling}, gpu_memory_mb=-1)"))["options"]
    assert options["max_ongoing_requests"] == 10
    assert options["autoscaling_config"]["target_ongoing_requests"] == 7
    assert options["ray_actor_options"]["num_gpus"] == 1
