"""From a source tree to what it asks for. Law: a broken app folder breaks its own apps and nothing else.

Whatever makes cluster.yaml itself doubtful stops the whole; nothing is removed because something could not be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, cast

from bioengine_runtime.contract.app import HYPHA_TOKEN, AppSpec, Autoscaling
from bioengine_runtime.contract.base import ENTIRE, OF_HYPHA, JsonValue, SecretFromAge, SecretRef
from bioengine_runtime.contract.cluster import AppInstance, ClusterSpec, HyphaSpec, artifact_version
from bioengine_runtime.contract.code import ClassFacts
from bioengine_runtime.contract.manifest import AppManifest
from bioengine_runtime.contract.status import Provenance
from reconciler.errors import InvalidDesiredState, SourceUnusable
from reconciler.planning.desired import AppCode, DesiredApp, DesiredState
from reconciler.planning.explain import did_you_mean, parse, problem, problem_at
from reconciler.planning.folder import FolderFacts, read_folder, twins, user_problems
from reconciler.planning.ignoring import astray
from reconciler.planning.memo import Memo
from reconciler.planning.overlay import Beside, read_layers
from reconciler.planning.problems import Location, Problem
from reconciler.planning.shown import VALUE_LIMIT, plain
from reconciler.planning.source import CLUSTER_FILE, SourceTree
from reconciler.planning.steps import SecretTable
from reconciler.planning.variables import with_variables
from reconciler.planning.yaml_text import Document, Fault, Path, Place

UNKNOWN_WORKSPACE = "unknown"
"""Stands for the workspace when neither cluster.yaml nor a connection says which it is (an offline plan)."""


def declare(tree: SourceTree, *, workspace: str | None = None) -> DesiredState:
    """Everything one commit asks for. `workspace` is the one connected to; unknown, it is the one cluster.yaml names.

    Raises SourceUnusable when there is no cluster.yaml, InvalidDesiredState (all problems at once) when it is invalid.
    """
    folders = tuple((folder.path, folder.tree) for folder in tree.folders.values())
    key = (
        tree.revision,
        workspace,
        tree.name,
        tuple(_files(tree).items()),
        folders,
        tuple(tree.refused.items()),
        tuple(tree.changed.items()),
    )
    return _MEMO.get(key, lambda: _declare(tree, workspace))


def _files(tree: SourceTree) -> Mapping[str, str]:
    """Name → blob id of the files that may say what the cluster runs."""
    named = {tree.name: tree.cluster_file} if tree.cluster_file else {}
    return {name: blob.oid for name, blob in sorted({**tree.beside, **named}.items())}


_MEMO: Memo[DesiredState] = Memo(limit=4)
_NOWHERE: tuple[str, Place] = (CLUSTER_FILE, (0, 0, 0))
_ALONE = Beside()


def _declare(tree: SourceTree, workspace: str | None) -> DesiredState:
    cluster, document = _read_cluster(tree)
    places = document.keys(("apps",))
    named = {instance.source for instance in cluster.apps.values()}
    facts = {path: read_folder(folder, tree.read) for path, folder in tree.folders.items() if path in named}
    shared = {**_same_ids(tree, facts), **_same_names(tree)}
    if workspace in (None, UNKNOWN_WORKSPACE):
        workspace = cluster.hypha.workspace or UNKNOWN_WORKSPACE
    apps: dict[str, DesiredApp] = {}
    broken: dict[str, tuple[Problem, ...]] = {}
    for app_id, instance in cluster.apps.items():
        one = _Instance(tree, cluster, document, app_id, instance, facts.get(instance.source or ""))
        problems = [*one.problems(), *shared.get(instance.source or "", ())]
        if problems:
            broken[app_id] = tuple(replace(item, app_id=app_id) for item in sorted(problems))
        else:
            apps[app_id] = one.desired(workspace, places.get(app_id, _NOWHERE))
    return DesiredState(
        revision=tree.revision,
        cluster=cluster,
        apps=apps,
        broken=broken,
        unused=tuple(sorted(set(tree.folders) - named)),
        changed=tree.changed,
        rewritten=tree.rewritten,
    )


# ── cluster.yaml ───────────────────────────────────────────────────────────────────────────────────────────────────


def _read_cluster(tree: SourceTree) -> tuple[ClusterSpec, Document]:
    if tree.cluster_file is None:
        raise _no_cluster_file(tree)
    beside, data = Beside(_files(tree), tree.read, tree.refused), tree.cluster_file.oid
    cluster, document, faults = _CLUSTERS.get(
        (tree.name, tuple(beside.files.items())), lambda: parse_cluster(tree.read(data), tree.name, beside)
    )
    if cluster is None or faults:
        problems = sorted(_problem(document, fault) for fault in faults)
        raise InvalidDesiredState([*problems, *_problems_of_folders(tree, document)])
    return cluster, document


_CLUSTERS: Memo[tuple[ClusterSpec | None, Document, list[Fault]]] = Memo(limit=4)


def parse_cluster(
    data: bytes, name: str = CLUSTER_FILE, beside: Beside = _ALONE
) -> tuple[ClusterSpec | None, Document, list[Fault]]:
    """cluster.yaml, with what it extends and its variables, as a model (None when it is not one), and everything that
    is wrong with it."""
    document = with_variables(read_layers(data, name, beside))
    cluster, faults = parse(ClusterSpec, document)
    dependencies = list(_dependency_faults(document))
    # The model tells only the first wrong dependency, and at no line of its own.
    telling = [fault for fault in faults if not (dependencies and fault.path == ("apps",))]
    return cluster, document, [*telling, *dependencies]


def _problem(document: Document, fault: Fault) -> Problem:
    held = document.holding(fault.path, fault.file)
    return problem(held.name, held, fault)


def _no_cluster_file(tree: SourceTree) -> SourceUnusable | InvalidDesiredState:
    refused = [item for item in tree.refused.items() if item[0] in (tree.name, "cluster.yml")]
    if refused:
        fix = f"commit a plain file {tree.name}"
        return InvalidDesiredState([Problem(Location(path), reason, fix) for path, reason in refused])
    near = did_you_mean(tree.name, tree.beside)
    return SourceUnusable(
        f"no {tree.name} in {tree.revision.short}; nothing is changed or removed",
        hint=near or f"commit a {tree.name}, or name the folder that holds it with --path",
    )


def _problems_of_folders(tree: SourceTree, document: Document) -> Iterator[Problem]:
    """What is wrong below apps/, so that an author sees it all in one go, also when cluster.yaml is wrong."""
    apps = _mapping(_mapping(document.value).get("apps"))
    named = [_mapping(instance).get("source") for instance in apps.values()]
    for path in dict.fromkeys(named):
        if isinstance(path, str) and path in tree.folders:
            yield from read_folder(tree.folders[path], tree.read).problems


def _dependency_faults(document: Document) -> Iterator[Fault]:
    """Unknown, repeated and circular dependencies, each at its own line."""
    apps = _mapping(_mapping(cast("object", document.value)).get("apps"))
    graph: dict[str, list[str]] = {}
    for app_id, instance in apps.items():
        needed = _mapping(instance).get("depends_on", [])
        names = cast("list[object]", needed) if isinstance(needed, list) else []
        graph[app_id] = [name for name in names if isinstance(name, str) and name in apps]
        for number, name in enumerate(names):
            at = ("apps", app_id, "depends_on", number)
            if isinstance(name, str) and name not in apps:
                fix = did_you_mean(name, [known for known in apps if known != app_id])
                yield Fault(*document.place(at), f"{app_id} depends on {name}, which this file does not name", fix, at)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib names each node before the one that needs it
        circle = list(reversed(cast("list[str]", error.args[1])))
        at = ("apps", circle[0], "depends_on")
        message = f"depends_on goes round in a circle: {' → '.join(circle)}"
        yield Fault(*document.place(at, key=True), message, "remove one of these dependencies", at)


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


# ── Folders among each other ───────────────────────────────────────────────────────────────────────────────────────


def _same_ids(tree: SourceTree, facts: Mapping[str, FolderFacts]) -> dict[str, list[Problem]]:
    """Folders with one manifest id would overwrite each other's artifact, unless they are the same throughout."""
    by_id: dict[str, list[str]] = {}
    for path, item in facts.items():
        if item.manifest:
            by_id.setdefault(item.manifest.id, []).append(path)
    found: dict[str, list[Problem]] = {}
    for name, paths in by_id.items():
        if len({tree.folders[path].tree for path in paths}) > 1:
            message = f'id "{name}" is used by {" and ".join(sorted(paths))}, whose contents differ'
            for path in paths:
                where = Location(f"{path}/manifest.yaml")
                found.setdefault(path, []).append(Problem(where, message, "give each folder an id of its own"))
    return found


def _same_names(tree: SourceTree) -> dict[str, list[Problem]]:
    found: dict[str, list[Problem]] = {}
    for message in twins(tree.folders):
        for path in message.split(" are ")[0].split(" and "):
            found.setdefault(path, []).append(Problem(Location(path), message, "rename one of them"))
    return found


# ── One instance ───────────────────────────────────────────────────────────────────────────────────────────────────

RESERVED_IDS = frozenset({"bioengine-worker", "bioengine-gateway"}) | OF_HYPHA
"""Besides the services that `hypha:` names; an app of such an id would be found in their place."""
_OF_RECONCILERS = ("", "-page", "-webhook")
_RESERVED_ENV = frozenset(
    {
        *("PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LD_PRELOAD", "LD_AUDIT"),
        *("HOME", "TMPDIR", "TEMP", "TMP", "HYPHA_SERVER_URL", "HYPHA_WORKSPACE", "HYPHA_ARTIFACT_ID"),
    }
)
_RESERVED_PREFIXES = ("RAY_", "BIOENGINE_")
_HIDDEN = "*****"
"""What the worker shows instead of a secret: copied from a status into git, it would become the value."""


@dataclass(frozen=True, slots=True)
class _Instance:
    """One entry of `apps:` with what it refers to; `facts` is None for an artifact, or a folder that is not there."""

    tree: SourceTree
    cluster: ClusterSpec
    document: Document
    app_id: str
    instance: AppInstance
    facts: FolderFacts | None

    def problems(self) -> Iterator[Problem]:
        if self.app_id in _services(self.cluster.hypha):
            yield self._at((), f'"{self.app_id}" is a name of the system itself', "choose another id", key=True)
        yield from self._env_problems()
        yield from self._ignore_problems()
        if self.instance.source is not None and self.facts is None:
            yield self._no_folder(self.instance.source)
        elif self.facts is not None:
            yield from self.facts.problems
            # Without all classes known, what is said of classes cannot be judged.
            if not self.facts.problems:
                yield from self._class_name_problems()
                yield from self._parameter_problems(self.facts.classes)
                users = self.instance.authorized_users
                at = ("apps", self.app_id, "authorized_users")
                yield from user_problems(self.document, at, users, self.facts.classes[0])

    def _at(self, path: Path, message: str, fix: str, *, key: bool = False) -> Problem:
        at = ("apps", self.app_id, *path)
        held = self.document.holding(at)
        return problem_at(held.name, held, at, message, fix, key=key)

    def _no_folder(self, source: str) -> Problem:
        if reason := self.tree.refused.get(source):
            return self._at(("source",), f"{source}: {reason}", "make it a plain folder")
        message = f"no folder {source} in {self.tree.revision.short}"
        return self._at(("source",), message, did_you_mean(source, self.tree.folders) or "commit a folder of this name")

    def _env_problems(self) -> Iterator[Problem]:
        for key, variables in self.instance.env.items():
            for name, value in variables.items():
                at, real = ("env", key, name), name.removeprefix("_")
                if real == HYPHA_TOKEN:
                    fix = "give it as `hypha_token:` beside `env:`, as a secret reference"
                    yield self._at(at, f"{name} cannot be set through env", fix, key=True)
                elif real in _RESERVED_ENV or real.startswith(_RESERVED_PREFIXES):
                    yield self._at(at, f"{name} belongs to the runtime", "use a name of your own", key=True)
                elif name.startswith("_") and isinstance(value, str):
                    fix = f"give it as a secret reference: {real}: {{env: NAME}} or {{file: PATH}}"
                    yield self._at(at, f"{name} marks a secret, and its value stands in git", fix, key=True)
                elif value == _HIDDEN:
                    fix = "give the value, or a secret reference"
                    yield self._at(at, f"{name} is {_HIDDEN}, which stands where a value was hidden", fix, key=True)
                elif real != name and real in variables:
                    yield self._at(at, f"{name} and {real} are the same variable", "keep one of them", key=True)

    def _ignore_problems(self) -> Iterator[Problem]:
        """Pointers at which no spec of this app can differ: they would leave out nothing, in silence."""
        known = self.facts is not None and not self.facts.problems
        classes = [facts.name for facts in self.facts.classes] if self.facts and known else []
        for number, pointer in enumerate(self.instance.ignore):
            if found := astray(pointer, classes):
                before = "/".join(pointer.split("/")[: found.depth + 1])
                message = f'ignore: there is no "{plain(found.part, VALUE_LIMIT)}" in {before or "an app"}'
                fix = did_you_mean(found.part, found.known) or f"end it there: {before}"
                yield self._at(("ignore", number), message, fix)

    def _class_name_problems(self) -> Iterator[Problem]:
        names = [facts.name for facts in self.facts.classes] if self.facts else []
        for field in ("kwargs", "env", "replicas", "autoscaling"):
            value = getattr(self.instance, field)
            for key in cast("dict[str, object]", value) if isinstance(value, dict) else ():
                if key != ENTIRE and key not in names:
                    message = f"{field}: {self.instance.source} has no deployment class {key}"
                    yield self._at((field, key), message, did_you_mean(key, names), key=True)

    def _parameter_problems(self, classes: Sequence[ClassFacts]) -> Iterator[Problem]:
        for_all = self.instance.kwargs.get(ENTIRE, {})
        for name in for_all:
            if not any(_takes(facts, name) for facts in classes):
                fix = did_you_mean(name, [item for facts in classes for item in facts.parameters])
                yield self._at(("kwargs", ENTIRE, name), f"no class of this app takes {name}", fix, key=True)
        for facts in classes:
            own = facts.handles
            given = self.instance.kwargs.get(facts.name, {})
            for name in given:
                if name in own:
                    message, fix = f"{name} is the handle of another deployment", "remove it; it is passed by itself"
                    yield self._at(("kwargs", facts.name, name), message, fix, key=True)
                elif not _takes(facts, name):
                    message = f"{facts.name}.__init__ has no parameter {name}"
                    fix = did_you_mean(name, [item for item in facts.parameters if item not in own])
                    yield self._at(("kwargs", facts.name, name), message, fix, key=True)
            missing = [name for name in facts.required if name not in {*own, *given, *for_all}]
            if missing:
                message = f"{facts.name}.__init__ needs {', '.join(missing)}"
                fix = f"give it under kwargs: {{{facts.name}: {{{missing[0]}: …}}}}"
                yield self._at(("kwargs",) if self.instance.kwargs else (), message, fix, key=True)

    # ── When all is well ───────────────────────────────────────────────────────────────────────────────────────────

    def desired(self, workspace: str, place: tuple[str, Place]) -> DesiredApp:
        code = self._code()
        env, secrets = self._environment()
        artifact_id = f"{workspace}/{code.manifest.id}" if code else str(self.instance.artifact)
        version = artifact_version(code.manifest.version, code.folder.tree) if code else str(self.instance.version)
        instance = self.instance
        spec = AppSpec(
            app_id=self.app_id,
            artifact_id=artifact_id,
            version=version,
            kwargs=self._kwargs(code),
            env=env,
            secrets={key: list(names) for key, names in secrets.items()},
            authorized_users=self._users(code.manifest if code else None),
            disable_gpu=instance.disable_gpu,
            max_ongoing_requests=instance.max_ongoing_requests,
            max_queued_requests=instance.max_queued_requests,
            replicas=_per_class(instance.replicas),
            autoscaling=_bounds_per_class(instance.autoscaling),
            rollout=instance.rollout,
            auto_redeploy=instance.auto_redeploy,
            debug=instance.debug,
            ice_servers=instance.ice_servers,
        )
        return DesiredApp(
            spec=spec,
            secrets=secrets,
            provenance=Provenance(
                owner=self.cluster.name,
                source=self.tree.revision.url,
                commit=self.tree.revision.id,
                path=instance.source,
                tree=code.folder.tree if code else None,
                digest=spec.digest(),
            ),
            code=code,
            where=Location(place[0], *place[1][:2]),
            depends_on=tuple(dict.fromkeys(instance.depends_on)),
            suspend=instance.suspend,
            adopt=instance.adopt,
            self_heal=instance.self_heal,
            ignore=tuple(instance.ignore),
        )

    def _code(self) -> AppCode | None:
        if self.facts is None or self.facts.manifest is None or self.instance.source is None:
            return None
        return AppCode(self.tree.folders[self.instance.source], self.facts.manifest, self.facts.classes)

    def _kwargs(self, code: AppCode | None) -> dict[str, dict[str, JsonValue]]:
        """Per class, what stands for `*` given to those classes that take it. An artifact's classes are not known."""
        given = self.instance.kwargs
        if code is None:
            return {key: dict(values) for key, values in given.items()}
        expanded: dict[str, dict[str, JsonValue]] = {}
        for facts in code.classes:
            shared = {name: value for name, value in given.get(ENTIRE, {}).items() if _takes(facts, name)}
            if values := {**shared, **given.get(facts.name, {})}:
                expanded[facts.name] = values
        return expanded

    def _environment(self) -> tuple[dict[str, dict[str, str]], SecretTable]:
        """(plain variables, secret references), by class. An underscore that marks a secret is no part of its name."""
        plain: dict[str, dict[str, str]] = {}
        secrets: SecretTable = {}
        if self.instance.hypha_token is not None:
            secrets[ENTIRE] = {HYPHA_TOKEN: self._placed(self.instance.hypha_token, "hypha_token")}
        for key, variables in self.instance.env.items():
            for name, value in variables.items():
                if isinstance(value, str):
                    plain.setdefault(key, {})[name] = value
                else:
                    table: dict[str, SecretRef] = secrets.setdefault(key, {})
                    table[name.removeprefix("_")] = self._placed(value, "env", key, name)
        return plain, secrets

    def _placed(self, ref: SecretRef, *path: str) -> SecretRef:
        """What stands in the file is told with its place, should it not be readable."""
        if not isinstance(ref, SecretFromAge):
            return ref
        at = ("apps", self.app_id, *path)
        held = self.document.holding(at)
        return ref.at(str(Location(held.name, *held.place(at, key=True)[:2])))

    def _users(self, manifest: AppManifest | None) -> list[str] | dict[str, list[str]]:
        """The instance's word, else the manifest's, else the policy's, else nobody but deployer and admins."""
        from_manifest = manifest.authorized_users if manifest else None
        for users in (self.instance.authorized_users, from_manifest, self.cluster.policy.default_authorized_users):
            if users is not None:
                return users
        return []


def _services(hypha: HyphaSpec) -> frozenset[str]:
    """Ids under which the system itself is found: here, and by another reconciler of the workspace."""
    names = (hypha.status, HyphaSpec().status)
    ours = {f"{name}{ending}" for name in names for ending in _OF_RECONCILERS}
    return RESERVED_IDS | ours | {hypha.worker.rpartition(":")[2]}


def _takes(facts: ClassFacts, name: str) -> bool:
    return facts.open_parameters or name in facts.parameters


def _per_class(replicas: int | dict[str, int] | None) -> dict[str, int]:
    return replicas if isinstance(replicas, dict) else {} if replicas is None else {ENTIRE: replicas}


def _bounds_per_class(autoscaling: Autoscaling | dict[str, Autoscaling] | None) -> dict[str, Autoscaling]:
    return autoscaling if isinstance(autoscaling, dict) else {} if autoscaling is None else {ENTIRE: autoscaling}
