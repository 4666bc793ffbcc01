"""An app folder on disk: what is uploaded, and everything that is wrong said at once."""

from __future__ import annotations

import base64
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.command import folder as folder_module
from bioengine_runtime.command.folder import BadFolder, read_app_folder
from bioengine_runtime.contract.limits import MAX_FILES, MAX_FOLDER_BYTES
from bioengine_runtime.stored import artifacts
from tests.command.app_folder import CODE, MANIFEST, a_folder


def problems_of(folder: Path) -> list[str]:
    with pytest.raises(BadFolder) as caught:
        read_app_folder(folder)
    return caught.value.problems


def test_every_file_is_taken_text_as_text_and_the_rest_as_base64(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, **{"frontend/index.html": "<h1>ü</h1>\r\n"})
    (folder / "logo.png").write_bytes(b"\x89PNG\xff")
    items = {item["name"]: item for item in read_app_folder(folder).items()}
    assert list(items) == ["demo.py", "frontend/index.html", "logo.png", "manifest.yaml"]
    assert items["frontend/index.html"] == {
        "name": "frontend/index.html",
        "content": "<h1>ü</h1>\r\n",
        "type": "text",
    }
    assert base64.b64decode(items["logo.png"]["content"]) == b"\x89PNG\xff" and items["logo.png"]["type"] == "base64"


def test_what_python_and_version_control_leave_behind_is_no_part_of_an_app(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, **{".git/config": "x", "__pycache__/demo.pyc": "x", "sub/__pycache__/a.pyc": "x"})
    assert set(read_app_folder(folder).files) == {"demo.py", "manifest.yaml"}


def test_the_listed_messages_of_the_guide(tmp_path: Path) -> None:
    lacking = a_folder(tmp_path / "a", manifest=MANIFEST.replace("description: Says things.\n", ""))
    assert problems_of(lacking) == ["manifest.yaml: Manifest is missing required field: description"]
    wrong_type = a_folder(tmp_path / "b", manifest=MANIFEST.replace("ray-serve", "notebook"))
    assert problems_of(wrong_type) == ["manifest.yaml: Application type must be 'ray-serve', not 'notebook'"]
    wrong_id = a_folder(tmp_path / "c", manifest=MANIFEST.replace("id: demo", "id: My_App"))
    (problem,) = problems_of(wrong_id)
    assert "Invalid artifact alias 'My_App'" in problem and "no underscores or slashes" in problem


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    folder = a_folder(
        tmp_path,
        manifest=MANIFEST + "frontend_entry: nowhere.html\n",
        **{"demo.py": CODE.replace("@schema_method", "").replace("class Demo", "class Other")},
    )
    (folder / "link.py").symlink_to(folder / "demo.py")
    found = problems_of(folder)
    assert len(found) == 3
    assert found[0].startswith("link.py is a symbolic link")
    assert "no class Demo in demo.py" in found[1]
    assert "nowhere.html" in found[2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("@schema_method", ""), "Demo offers nothing to call"),
        (("@serve.deployment", "@other"), "demo.py:7:1: class Demo is not a Ray Serve deployment"),
        (("def ping(", "def ping(("), "demo.py:9:"),
        (("(num_replicas=1)", '(ray_actor_options={"runtime_env": {"pip": ["nump=1"]}})'), "'nump=1' is not valid"),
        (("(num_replicas=1)", '(ray_actor_options={"runtime_env": {"pip": ["-r x"]}})'), "'-r x' is refused"),
    ],
    ids=["nothing-to-call", "no-deployment", "syntax", "bad-requirement", "refused-requirement"],
)
def test_a_fault_of_the_code_is_found_without_running_it(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    (problem,) = problems_of(a_folder(tmp_path, **{"demo.py": CODE.replace(*change)}))
    assert said in problem


def test_what_cannot_be_read_is_said_and_never_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_folder(tmp_path, **{"closed/model.py": "x", "secret.txt": "x"})
    look, read = os.scandir, Path.read_bytes

    def no_look(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path)

    def no_read(path: Path) -> bytes:
        if path.name in closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    closed = {"secret.txt"}
    monkeypatch.setattr(os, "scandir", no_look)
    monkeypatch.setattr(Path, "read_bytes", no_read)
    fix = "cannot be read: Permission denied; make it readable for you, or move it out of the folder"
    assert problems_of(folder) == [f"closed {fix}", f"secret.txt {fix}"]
    closed = {"manifest.yaml"}
    assert problems_of(folder) == [f"closed {fix}", f"manifest.yaml {fix}"]


def test_a_manifest_with_aliases_is_refused_here_as_it_is_there(tmp_path: Path) -> None:
    assert problems_of(a_folder(tmp_path, MANIFEST + "tags: &a [x]\nmore: *a\n")) == [
        "manifest.yaml: line 9: anchor &a; write the value out, anchors and aliases are refused"
    ]


def test_a_handle_that_the_entry_does_not_take(tmp_path: Path) -> None:
    second = CODE.replace("Demo", "Second")
    manifest = MANIFEST.replace('["demo:Demo"]', '["demo:Demo", "second:Second"]')
    (problem,) = problems_of(a_folder(tmp_path, manifest=manifest, **{"second.py": second}))
    assert "Demo.__init__ has no parameter second" in problem


def test_a_rule_for_a_method_that_is_not_there_would_guard_nothing(tmp_path: Path) -> None:
    manifest = MANIFEST.replace('authorized_users: ["*"]', "authorized_users: {pong: [alice]}")
    (problem,) = problems_of(a_folder(tmp_path, manifest=manifest))
    assert "Demo has no method pong (ping)" in problem


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "nowhere") == [f"{tmp_path}/nowhere is not there"]
    (tmp_path / "manifest.yml").write_text("x")
    (problem,) = problems_of(tmp_path)
    assert problem.endswith("has no manifest.yaml; rename manifest.yml to manifest.yaml")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('authorized_users: ["anna"]', 'key "authorized_users" is given twice, first in line 7; keep one of them'),
        ("tags: [{a: 1, a: 2}]", 'key "a" is given twice, first in line 9; keep one of them'),
        ("<<: {tags: []}", "merge key <<; write its keys out"),
        ("tags: \x01", "character U+0001 is not allowed; remove it"),
        ("tags: [", "not YAML: did not find expected node content; mend this line or the one above it"),
    ],
)
def test_what_would_be_read_in_two_ways_or_not_at_all_is_told_with_its_line(
    tmp_path: Path, more: str, told: str
) -> None:
    """Caught: of a key that is there twice the last one won, also of who may call."""
    (problem,) = problems_of(a_folder(tmp_path, manifest=f"{MANIFEST}{more}\n"))
    assert problem.startswith("manifest.yaml: line ") and problem.endswith(f": {told}")


@pytest.mark.parametrize("content", ["", "a: [", "- a", "\x00"], ids=["empty", "no-yaml", "list", "binary"])
def test_a_manifest_that_is_none(tmp_path: Path, content: str) -> None:
    (problem,) = problems_of(a_folder(tmp_path, manifest=content))
    assert problem.startswith("manifest.yaml: ")


def test_the_limits_are_those_of_the_worker_and_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (MAX_FOLDER_BYTES, MAX_FILES) == (artifacts.MAX_FOLDER_BYTES, artifacts.MAX_FILES)
    monkeypatch.setattr(folder_module, "MAX_FOLDER_BYTES", 1024)
    folder = a_folder(tmp_path)
    (folder / "weights.pt").write_bytes(b"w" * 2048)
    (problem,) = problems_of(folder)
    assert "largest: weights.pt" in problem and "load them in async_init" in problem


def test_too_many_files(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    for number in range(MAX_FILES):
        (folder / f"{number}.txt").touch()
    (problem,) = problems_of(folder)
    assert f"{MAX_FILES + 2} files; at most {MAX_FILES}" in problem
