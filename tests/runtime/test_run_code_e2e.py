"""Code of other people's on a real Ray: where it runs, what it sees, what comes back, and that it can be ended."""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest
import ray
from hypha_rpc import connect_to_server
from ray.cloudpickle import cloudpickle

from bioengine_runtime.code_runs import run_code as run_code_module
from bioengine_runtime.code_runs.run_code import run_code
from bioengine_runtime.rpc import callers
from bioengine_runtime.rpc.access import Caller
from bioengine_runtime.rpc.door import exposed, remote_methods
from bioengine_runtime.rpc.service import OnLine
from tests.runtime.apps_world import a_ray
from tests.runtime.stack import a_stack

pytestmark = pytest.mark.e2e

CANARIES = {"HYPHA_TOKEN": "canary-token", "HYPHA_TOKEN_FILE": "/canary/file", "SOME_SECRET": "canary-secret"}


@pytest.fixture(scope="module", autouse=True)
def on_ray() -> Iterator[None]:
    """The Ray, and with it every process of it, is started by somebody with secrets in the environment; and in the
    background of a script, where Ctrl-C is ignored."""
    os.environ.update(CANARIES)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with a_ray():
            signal.signal(signal.SIGINT, before)
            yield
    finally:
        signal.signal(signal.SIGINT, before)
        for name in CANARIES:
            os.environ.pop(name, None)


async def run(source: str | None = None, *args: Any, **given: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "code": source,
        "function_name": "analyze",
        "func_bytes": None,
        "mode": "source",
        "args": list(args),
        "kwargs": None,
        "remote_options": None,
        "write_stdout": None,
        "write_stderr": None,
        "timeout": 60,
    }
    return await run_code(**{**defaults, **given})


async def run_pickled(func_bytes: bytes, *args: Any, **given: Any) -> dict[str, Any]:
    return await run(None, *args, mode="pickle", func_bytes=func_bytes, **given)


async def soon(is_so: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "never became so"
        await asyncio.sleep(0.05)


def runs(pid: str | int) -> bool:
    return psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE


# What comes back


async def test_the_result_and_what_was_printed_come_back() -> None:
    source = """
        import sys
        def analyze(a, *, b):
            print("out")
            print("err", file=sys.stderr)
            return {"sum": a + b, "list": [1, None, 2.5, "x", b"y"]}
    """
    answer = await run(source, 1, kwargs={"b": 2})
    assert answer == {"result": {"sum": 3, "list": [1, None, 2.5, "x", b"y"]}, "stdout": "out\n", "stderr": "err\n"}


async def test_a_coroutine_function_is_awaited() -> None:
    answer = await run(
        "import asyncio\nasync def other():\n    await asyncio.sleep(0.01)\n    return 7", function_name="other"
    )
    assert answer["result"] == 7


async def test_arrays_go_there_and_come_back() -> None:
    given = numpy.arange(6, dtype="int16").reshape(2, 3)
    answer = await run("def analyze(a):\n    a += 1\n    return a, a.mean(), {1, 2}", given)
    array, mean, numbers = answer["result"]
    assert array.dtype == given.dtype and (array == given + 1).all()
    assert (mean, numbers) == (3.5, {1, 2})


async def test_a_pickled_closure_is_run() -> None:
    factor = 3
    answer = await run_pickled(cloudpickle.dumps(lambda x: x * factor), 14)
    assert answer["result"] == 42


async def test_a_pickle_made_with_cloudpickle_itself_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(cloudpickle.__file__).parent
    shutil.copytree(own, tmp_path / "cloudpickle")
    for file in (tmp_path / "cloudpickle").glob("*.py"):
        file.write_text(file.read_text().replace("ray.cloudpickle", "cloudpickle"))
    monkeypatch.syspath_prepend(tmp_path)
    func_bytes = importlib.import_module("cloudpickle").dumps(lambda x: x + 1)
    assert b"ray" not in func_bytes
    try:
        assert (await run_pickled(func_bytes, 1)).get("result") == 2
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "cloudpickle"]:
            del sys.modules[name]


async def test_dataclasses_of_the_source_work() -> None:
    source = """
        from __future__ import annotations
        from dataclasses import asdict, dataclass
        @dataclass
        class Point:
            x: int
        def analyze():
            return asdict(Point(1))
    """
    assert (await run(source))["result"] == {"x": 1}


@pytest.mark.parametrize(
    "value", ["lambda: 1", "object()", "2**70", "[open('/dev/null')]", "__import__('re').compile('a')"]
)
async def test_a_result_that_is_more_than_data_is_an_error_that_says_so(value: str) -> None:
    answer = await run(f"def analyze():\n    print('done')\n    return {value}")
    assert "result cannot be sent back" in answer["error"]
    assert answer["stdout"] == "done\n" and "result" not in answer


async def test_an_error_shows_the_line_of_the_code_and_nothing_of_ours() -> None:
    answer = await run("def analyze():\n    print('before')\n    raise KeyError('gone')")
    assert answer["error"] == "KeyError: 'gone'"
    assert "raise KeyError('gone')" in answer["traceback"] and "code_runs" not in answer["traceback"]
    assert answer["stdout"] == "before\n"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def analyze(:", "SyntaxError"),
        ("def other():\n    pass", 'no function "analyze"; it defines other'),
        ("1 / 0", "ZeroDivisionError"),
        ("def analyze():\n    raise SystemExit(4)", "sys.exit(4)"),
        ("def analyze():\n    raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os\ndef analyze():\n    os._exit(3)", "exit code 3"),
        ("import os\ndef analyze():\n    os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os\ndef analyze():\n    os.closerange(0, 1000)\n    import time; time.sleep(30)", "closed the pipes"),
    ],
)
async def test_code_that_ends_badly_is_an_error_and_not_a_hang(source: str, error: str) -> None:
    answer = await run(f"print('begun', flush=True)\n{source}", timeout=20)
    assert error in answer["error"] and answer["traceback"]
    assert answer["stdout"] == ("" if "SyntaxError" in error else "begun\n")


async def test_a_pickle_that_cannot_be_opened_is_an_error() -> None:
    answer = await run_pickled(b"no pickle")
    assert "UnpicklingError" in answer["error"] and {"traceback", "stdout", "stderr"} <= answer.keys()


@pytest.mark.parametrize(
    ("given", "names"),
    [({"mode": "source"}, "code"), ({"mode": "pickle"}, "func_bytes"), ({"mode": "binary"}, "mode")],
)
async def test_nothing_to_run_is_a_value_error(given: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        await run(**given)


# Where it runs


async def test_code_never_runs_in_the_worker_process() -> None:
    pids = await run("import os\nat_import = os.getpid()\ndef analyze():\n    return at_import, os.getpid()")
    assert os.getpid() not in pids["result"]


async def test_a_pickle_is_never_opened_in_the_worker_process(tmp_path: Path) -> None:
    class Opened:
        def __reduce__(self) -> Any:
            return eval, (f"(open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid())), len)[1]",)

    assert (await run_pickled(cloudpickle.dumps(Opened()), "abc"))["result"] == 3
    assert int((tmp_path / "pid").read_text()) != os.getpid()


async def test_a_result_runs_nothing_in_the_worker_process(tmp_path: Path) -> None:
    source = """
        import os
        class Trap:
            def __init__(self, path):
                self.path = path
            def __reduce__(self):
                return os.mkdir, (self.path,)
        def analyze(path):
            return Trap(path)
    """
    answer = await run(source, str(tmp_path / "sprung"))
    assert "Trap is not plain data" in answer["error"]
    assert not (tmp_path / "sprung").exists()


async def test_bytes_written_in_place_of_the_answer_are_only_bytes() -> None:
    source = """
        import os, pickle, sys
        def analyze():
            os.write(int(sys.argv[1]), pickle.dumps(print))
            os._exit(0)
    """
    assert "cannot be sent back" in (await run(source))["error"]


async def test_every_run_has_a_process_of_its_own() -> None:
    source = "import os, sys\ndef analyze():\n    sys.left = True\n    return os.getpid()"
    first = await run(source)
    again = await run("import os, sys\ndef analyze():\n    return os.getpid(), hasattr(sys, 'left')")
    assert again["result"][0] != first["result"] and not again["result"][1]


async def test_no_token_or_secret_is_in_the_environment_of_the_code() -> None:
    source = """
        from pathlib import Path
        def analyze():
            return Path("/proc/self/environ").read_text() + repr(dict(__import__("os").environ))
    """
    inherited = await asyncio.to_thread(ray.get, ray.remote(lambda: dict(os.environ)).remote())
    assert CANARIES.items() <= inherited.items()  # else this test could not fail
    seen = (await run(source))["result"]
    for name, value in CANARIES.items():
        assert name not in seen and value not in seen


async def test_variables_that_the_caller_sets_are_there() -> None:
    options = {"runtime_env": {"env_vars": {"MINE": "yes"}}}
    answer = await run("import os\ndef analyze():\n    return os.environ['MINE']", remote_options=options)
    assert answer["result"] == "yes"


async def test_the_code_can_use_the_cluster() -> None:
    answer = await run("import ray\ndef analyze():\n    ray.init()\n    return len(ray.nodes())")
    assert answer["result"] == 1


# Output, live


async def test_lines_are_told_while_the_code_runs(tmp_path: Path) -> None:
    """The code goes on only when somebody who has heard its first line lets it."""
    go_on, heard, complained = tmp_path / "go-on", list[str](), list[str]()

    def on_stdout(line: str) -> None:
        heard.append(line)
        go_on.touch()

    async def on_stderr(line: str) -> None:
        complained.append(line)

    source = """
        import os, sys, time
        def analyze(path):
            print("waiting")
            while not os.path.exists(path):
                time.sleep(0.01)
            os.system("echo from a subprocess")
            sys.stderr.write("10%\\r20%\\rno end of line")
    """
    answer = await run(source, str(go_on), write_stdout=on_stdout, write_stderr=on_stderr, timeout=20)
    assert "error" not in answer
    assert "\n".join(heard) == "waiting\nfrom a subprocess" and heard[0] == "waiting"
    assert "\n".join(complained) == "10%\n20%\nno end of line"
    assert answer["stdout"] == "waiting\nfrom a subprocess\n"


@pytest.mark.parametrize("how", ["raises", "raises later", "hangs", "is gone"])
async def test_a_listener_that_fails_does_not_concern_the_code(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_code_module, "TELL_WITHIN_S", 0.2)
    monkeypatch.setattr(run_code_module, "TELL_REST_WITHIN_S", 1000)
    calls = 0

    def listener(_line: str) -> Awaitable[None] | None:
        nonlocal calls
        calls += 1
        if how == "raises":
            raise RuntimeError("no")
        return late()

    async def late() -> None:
        if how == "hangs":
            await asyncio.sleep(100)
        if how == "is gone":
            raise asyncio.CancelledError
        raise RuntimeError("no")

    source = "import time\ndef analyze():\n    for i in '012':\n        print(i)\n        time.sleep(.1)\n    return 1"
    answer = await run(source, write_stdout=listener, write_stderr=listener)
    assert answer == {"result": 1, "stdout": "0\n1\n2\n", "stderr": ""}
    assert calls == 1  # it is not asked again


async def test_lines_that_come_faster_than_they_are_told_are_told_together() -> None:
    told: list[str] = []

    async def slow(lines: str) -> None:
        await asyncio.sleep(0.05)
        told.append(lines)

    answer = await run("def analyze():\n    for i in range(5000): print(i)", write_stdout=slow)
    assert "\n".join(told).split("\n") == answer["stdout"].split() == [str(i) for i in range(5000)]
    assert len(told) < 1000


async def test_a_print_loop_does_not_fill_the_workers_memory() -> None:
    limit = run_code_module.OUTPUT_LIMIT
    answer = await run("def analyze():\n    for _ in range(15_000): print('x' * 1023)\n    return 'done'")
    assert answer["result"] == "done"
    assert len(answer["stdout"]) == limit
    assert "only the first 10 MB" in answer["stderr"]


class Runs:
    """The worker's service, as far as it runs code."""

    @exposed(ends_with_caller=True)
    async def run_code(self, caller: Caller, code: str, write_stdout: OnLine | None = None) -> dict[str, Any]:  # noqa: ARG002
        """As the worker's."""
        return await run(code, write_stdout=write_stdout)


async def test_callers_on_hypha_hear_the_lines_and_end_their_code_by_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "ASK_EVERY_S", 0.2)
    monkeypatch.setattr(callers, "GONE_FOR_S", 0.5)
    async with a_stack(with_worker=False) as stack, stack.connected() as worker:
        present = callers.Callers(lambda client: worker.rpc.ping(client, timeout=2))
        watching = asyncio.create_task(present.watch())
        methods = remote_methods(Runs(), lambda *_: None, lambda _: True, present)
        await worker.register_service({"id": "code", "config": {"require_context": True}, **methods})
        address = {"server_url": stack.url, "token": await worker.generate_token(), "logger": None}
        heard: list[str] = []
        async with connect_to_server(address) as person:
            service = await person.get_service(f"{worker.config.client_id}:code")
            answer = await service.run_code(
                "def analyze():\n    print('hello')\n    return 1", write_stdout=heard.append
            )
            assert (heard, answer["result"]) == (["hello"], 1)
            heard.clear()
            calling = asyncio.ensure_future(service.run_code(ENDLESS, write_stdout=heard.append))
            await soon(lambda: bool(heard))
            process, child = heard[0].split()
            assert runs(process) and runs(child)
        await asyncio.gather(calling, return_exceptions=True)
        await soon(lambda: not runs(process) and not runs(child))
        watching.cancel()


# Its end

ENDLESS = """
import os, subprocess, time
def analyze():
    child = subprocess.Popen(["sleep", "1000"])
    print(os.getpid(), child.pid)
    while True:
        pass
"""


async def test_time_that_is_up_ends_the_code_and_all_it_has_started() -> None:
    began = time.monotonic()
    answer = await run(ENDLESS, timeout=8)
    assert time.monotonic() - began < 8 + run_code_module.END_WITHIN_S  # it was not forced
    assert "timed out" in answer["error"] and "8 s" in answer["error"] and answer["traceback"]
    process, child = answer["stdout"].split()  # what was printed until then
    await soon(lambda: not runs(process) and not runs(child))


async def test_a_caller_who_goes_away_ends_the_code() -> None:
    printed: list[str] = []
    calling = asyncio.create_task(run(ENDLESS, write_stdout=printed.append))
    await soon(lambda: bool(printed))
    process, child = printed[0].split()
    assert runs(process)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await soon(lambda: not runs(process) and not runs(child))


async def test_code_ends_with_the_ray_process_that_watches_over_it() -> None:
    printed: list[str] = []
    calling = asyncio.create_task(run(ENDLESS, write_stdout=printed.append))
    await soon(lambda: bool(printed))
    process, child = printed[0].split()
    psutil.Process(int(process)).parent().kill()  # type: ignore[union-attr]
    answer = await calling
    assert "lost with the process or node" in answer["error"] and answer["stdout"] == f"{process} {child}\n"
    await soon(lambda: not runs(process) and not runs(child))


@pytest.mark.parametrize("command", ["sleep 1000", "yes", "yes no >&2"])
async def test_a_process_left_behind_does_not_hold_up_the_answer(command: str) -> None:
    source = f"import subprocess\ndef analyze():\n    return subprocess.Popen('exec {command}', shell=True).pid"
    answer = await run(source, timeout=20)
    await soon(lambda: not runs(answer["result"]))


# What it asks for


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"num_cpu": 1}, "num_cpu: "),
        ({"max_retries": 3}, "max_retries: "),
        ({"num_cpus": "many"}, "num_cpus: "),
        ({"resources": {"x": 0}}, "resources.x: "),
        ({"num_gpus": 1}, "needs 1 GPU, has 0"),
        ({"num_cpus": 100}, "needs 100 CPU, has 4"),
        ({"resources": {"microscope": 1}}, "microscope"),
        ({"accelerator_type": "H100"}, "H100"),
        ({"runtime_env": {"env_vars": {"A": 1}}}, "env_vars"),
    ],
)
async def test_what_ray_could_never_give_is_an_error_at_once(options: dict[str, Any], names: str) -> None:
    answer = await run("def analyze():\n    return 1", remote_options=options, timeout=1000)
    assert names in answer["error"] and {"traceback", "stdout", "stderr"} <= answer.keys()


async def test_where_nodes_may_come_what_fits_on_none_of_now_waits_for_one() -> None:
    answer = await run("def analyze():\n    return 1", remote_options={"num_cpus": 100}, timeout=1, grows=True)
    assert "had not started after 1 s" in answer["error"] and "needs 100 CPU, has 4" in answer["error"]


async def test_what_finds_no_place_in_time_says_so_and_never_runs(tmp_path: Path) -> None:
    printed: list[str] = []
    holding = asyncio.create_task(run(ENDLESS, remote_options={"num_cpus": 4}, write_stdout=printed.append))
    await soon(lambda: bool(printed))
    file = tmp_path / "ran"
    answer = await run("def analyze(path):\n    open(path, 'w')", str(file), remote_options={"num_cpus": 2}, timeout=1)
    assert "had not started after 1 s" in answer["error"] and "no node had 2 CPU free" in answer["error"]
    holding.cancel()
    await soon(lambda: not runs(printed[0].split()[0]))
    assert (await run("def analyze():\n    return 1", remote_options={"num_cpus": 4}))["result"] == 1
    assert not file.exists()
