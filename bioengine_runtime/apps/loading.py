"""Import one class of an app from its folder. The app's own files win over installed modules of the same name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import bioengine_runtime
from bioengine_runtime.apps.errors import BadApp


def offer_bioengine() -> None:
    """Let `import bioengine` work, unless the app brings its own."""
    shim = str(Path(bioengine_runtime.__file__).parent / "shim")
    if shim not in sys.path:
        sys.path.append(shim)


def load_class(code: str, module: str, class_name: str) -> tuple[Any, type]:
    """The deployment as decorated, and the user's class in it."""
    deployment = getattr(_load_module(code, module), class_name, None)
    file = f"{module.replace('.', '/')}.py"
    if deployment is None:
        raise BadApp(f"{file} has no class {class_name}")
    user_class = getattr(deployment, "func_or_class", None)
    if not isinstance(user_class, type):
        raise BadApp(f"{class_name} in {file} is not a class decorated with @serve.deployment or @bioengine.app")
    return deployment, user_class


def _load_module(code: str, module: str) -> Any:
    """By its file. A module that Ray or Python has loaded under this name stays theirs, and the app's gets another."""
    if code not in sys.path:
        sys.path.insert(0, code)
    path = Path(code) / f"{module.replace('.', '/')}.py"
    if "." in module:
        return _load_from_package(module, path)
    known = sys.modules.get(module)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    name = module if known is None else f"bioengine_app_{module}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise BadApp(f"the app has no file {module}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[name]
        raise
    return loaded


def _load_from_package(module: str, path: Path) -> Any:
    """The app's folders are packages as they are; one that Ray or Python has loaded under this name stays theirs."""
    if not path.is_file():
        raise BadApp(f"the app has no file {module.replace('.', '/')}.py")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        loaded = None
    if getattr(loaded, "__file__", None) != str(path):
        top = module.split(".")[0]
        raise BadApp(f"the folder {top} has the name of an installed package; give it another")
    return loaded
