"""A plan as a document: versioned, in a stable order, without secrets (only where their values are read from).

A saved plan is not replayed. Who applies it fetches its commit, looks again, plans again, and goes on only when
`differences` finds nothing: so an edited file can refuse work, and never cause any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from bioengine_runtime.contract.app import AppSpec
from reconciler.planning.digest import digest_of
from reconciler.planning.render_text import summary
from reconciler.planning.shown import duration
from reconciler.planning.source import Revision
from reconciler.planning.steps import (
    DeployApp,
    Effect,
    Held,
    Plan,
    PlanOptions,
    PrepareRuntimeEnv,
    ScaleWorkers,
    SecretTable,
    Step,
    StopApp,
    UpdateApp,
    UploadArtifact,
    Verb,
)
from reconciler.planning.timing import longest_path, waves

FORMAT_VERSION = "1.0"
"""Fields are only added while the first number stays."""

_UNSIGNED = frozenset({"digest"})
_FORECAST = frozenset({"note", "interruption_s", "takes_s", "room"})
"""Of an effect: what varies with free resources and with what was learned, and decides nothing."""
_WHERE = frozenset({"path", "file"})
"""Of a source: where to look again. What was found there, the cluster's name and the steps say."""
CLOCKS_DIFFER_S = 300.0
"""So far the clock of the machine that made a plan may be ahead."""


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """What is needed to make the saved plan again: where from, for which cluster, and asked for how."""

    cluster: str
    url: str
    ref: str
    commit: str
    path: str
    file: str
    worktree: bool
    options: PlanOptions
    created_at: str
    plan_digest: str


def to_json(plan: Plan, created_at: str) -> dict[str, Any]:
    """The document; `digest` covers all of it."""
    content = {
        "format_version": FORMAT_VERSION,
        "created_at": created_at,
        "id": plan.id,
        **_content(plan),
        "plan_digest": digest(plan),
    }
    return {"digest": digest_of(content), **content}


def id_of(plan: Plan) -> str:
    """`p-9c1e7d2-5b0e13c4`, by which people name a plan. Eight digits, because approving one must not approve another
    that somebody made to fit."""
    return f"p-{plan.revision.commit[:7]}-{digest(plan).removeprefix('sha256:')[:8]}"


def out_of_date(saved: SavedPlan, *, valid_s: float, now: float) -> str:
    """Why a saved plan is too old, in a sentence; "" when it is not. `now` in seconds since the epoch."""
    try:
        made = datetime.fromisoformat(saved.created_at)
    except ValueError:
        made = None
    if made is None or made.tzinfo is None:
        return f"it does not say when it was made (created_at is {saved.created_at!r})"
    age_s = now - made.timestamp()
    if age_s < -CLOCKS_DIFFER_S:
        return f"it says that it was made {duration(-age_s)} from now; compare the clocks"
    if age_s > valid_s:
        return f"it was made {duration(age_s)} ago, and policy.plan_valid_s is {valid_s:g}"
    return ""


def digest(plan: Plan) -> str:
    """Identity of what a plan decides and what it was made from. Wording and forecasts that vary with free resources
    are left out; whether callers are interrupted is not."""
    return digest_of(_decisions(_content(plan)))


def from_json(document: Mapping[str, Any]) -> SavedPlan:
    """What a saved plan is about. Raises ValueError when it is not one, or one of a newer format, or not
    to be applied."""
    version = document.get("format_version")
    if not isinstance(version, str) or version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise ValueError(f"not a plan of format {FORMAT_VERSION}: format_version is {version!r}")
    if document.get("since"):
        raise ValueError("an offline plan, made without asking what runs, cannot be applied")
    try:
        source, options = document["source"], document["options"]
        return SavedPlan(
            cluster=str(document["cluster"]),
            url=str(source["url"]),
            ref=str(source["ref"]),
            commit=str(source["commit"]),
            path=str(source["path"]),
            file=str(source["file"]),
            worktree=bool(source["worktree"]),
            options=PlanOptions(
                targets=frozenset(str(target) for target in options["targets"]),
                prune_confirmed=int(options["prune_confirmed"]),
                force=bool(options["force"]),
            ),
            created_at=str(document.get("created_at", "")),
            plan_digest=str(document["plan_digest"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a plan: {type(error).__name__} at {error}") from None


def differences(document: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    """What moved between the saved plan and the one made now, in sentences; empty when they are the same."""
    content = {key: value for key, value in document.items() if key not in _UNSIGNED}
    try:
        intact = document.get("digest") == digest_of(content)
    except (TypeError, ValueError):
        intact = False
    if not intact:
        return ("the file was changed after it was written (its digest does not match)",)
    if document.get("plan_digest") == digest(plan):
        return ()
    return tuple(_moved(document, _content(plan))) or ("the plan made now is another one",)


def _moved(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if saved["cluster"] != now["cluster"]:
        yield f"it is for cluster {saved['cluster']}, not {now['cluster']}"
    if saved["source"] != now["source"]:
        yield f"the source moved from {saved['source']['commit'][:7]} to {now['source']['commit'][:7]}"
    if saved["options"] != now["options"]:
        yield "it was made with other options"
    if saved["live"]["digest"] != now["live"]["digest"]:
        yield "what runs or is stored changed since"
    yield from _moved_items("step", "address", saved["steps"], now["steps"], _decided_step)
    yield from _moved_items("held", "app_id", saved["held"], now["held"], _decided_held)


def _moved_items(word: str, key: str, saved: Any, now: Any, decided: Any) -> Iterator[str]:
    old = {item[key]: decided(item) for item in saved}
    new = {item[key]: decided(item) for item in now}
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            sign = "is new" if name not in old else "is gone" if name not in new else "differs"
            yield f"{word} {name} {sign}"


def _decisions(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{key: content[key] for key in ("cluster", "options")},
        "source": {key: value for key, value in content["source"].items() if key not in _WHERE},
        "live": content["live"]["digest"],
        "steps": [_decided_step(step) for step in content["steps"]],
        "held": [_decided_held(held) for held in content["held"]],
    }


def _decided_step(step: Mapping[str, Any]) -> dict[str, Any]:
    effect = {key: value for key, value in step["effect"].items() if key not in _FORECAST}
    return {**{key: step[key] for key in ("address", "kind", "needs", "pre", "args", "drift")}, "effect": effect}


def _decided_held(held: Mapping[str, Any]) -> list[str]:
    return [held["app_id"], held["reason"], held["action"]]


def _content(plan: Plan) -> dict[str, Any]:
    revision, gate, path, number = plan.revision, plan.gate, longest_path(plan), waves(plan)
    return {
        "cluster": plan.cluster,
        "source": _revision(revision),
        "since": _revision(plan.since) if plan.since else None,
        "worker": plan.worker,
        "options": {
            "targets": sorted(plan.options.targets),
            "prune_confirmed": plan.options.prune_confirmed,
            "force": plan.options.force,
        },
        "live": {
            "complete": not plan.unseen and plan.since is None,
            "digest": plan.live_digest,
            "unseen": [{"what": unseen.what, "why": unseen.why} for unseen in plan.unseen],
        },
        "summary": summary(plan),
        "gate": {"reason": gate.reason.value, "message": gate.message, "fix": gate.fix} if gate else None,
        "valid_s": plan.valid_s,
        "longest_path_s": None if path.unknown else path.seconds,
        "steps": [_step(step, number) for step in plan.steps],
        "held": [_held(held) for held in plan.held],
        "problems": [
            {"where": str(problem.where), "message": problem.message, "fix": problem.fix, "app_id": problem.app_id}
            for problem in plan.problems
        ],
        "unchanged": list(plan.unchanged),
        "unused": list(plan.unused),
        "ignored": list(plan.accepted),
        "notes": list(plan.notes),
    }


def _revision(revision: Revision) -> dict[str, Any]:
    return {
        "url": revision.url,
        "ref": revision.ref,
        "commit": revision.commit,
        "subject": revision.subject,
        "signature": revision.signature,
        "path": revision.path,
        "file": revision.file,
        "worktree": revision.worktree,
    }


def _step(step: Step, wave: Mapping[str, int]) -> dict[str, Any]:
    return {
        "address": step.address,
        "kind": KINDS[type(step.verb)],
        "app_id": step.app_id,
        "wave": wave.get(step.app_id or ""),
        "needs": list(step.needs),
        "pre": dict(step.pre),
        "args": _arguments(step.verb),
        "why": step.why,
        "drift": step.drift,
        "effect": _effect(step.effect),
        "changes": _changes(step),
    }


def _held(held: Held) -> dict[str, Any]:
    return {
        "app_id": held.app_id,
        "reason": held.reason.value,
        "action": held.action.value,
        "message": held.message,
        "fix": held.fix,
        "changes": _changes(held),
    }


def _changes(of: Step | Held) -> list[dict[str, str]]:
    return [
        {"field": change.field, "path": change.path, "before": change.before, "after": change.after}
        for change in of.changes
    ]


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        "impact": effect.impact.value,
        "rebuilds_env": effect.rebuilds_env,
        "interruption_s": effect.interruption_s,
        "note": effect.note,
        "takes_s": effect.takes_s,
        "room": effect.room,
    }


KINDS: Mapping[type[Verb], str] = {
    ScaleWorkers: "scale_workers",
    UploadArtifact: "upload_artifact",
    PrepareRuntimeEnv: "prepare_runtime_env",
    DeployApp: "deploy_app",
    UpdateApp: "update_app",
    StopApp: "stop_app",
}


def _arguments(verb: Verb) -> dict[str, Any]:
    """What a verb acts on. A spec is named by its digest: its environment is nobody's business outside."""
    match verb:
        case ScaleWorkers():
            return {"min": verb.min, "max": verb.max}
        case UploadArtifact():
            return {
                "artifact_id": verb.artifact_id,
                "version": verb.version,
                "path": verb.folder.path,
                "tree": verb.folder.tree,
                "files": len(verb.folder.files),
                "bytes": verb.folder.size,
                "resumes": verb.resumes,
            }
        case PrepareRuntimeEnv():
            return {**_code(verb.spec), "disable_gpu": verb.spec.disable_gpu}
        case DeployApp() | UpdateApp():
            return {**_code(verb.spec), "digest": verb.spec.digest(), "secrets": _secrets(verb.secrets)}
        case StopApp():
            return {}
        case _:
            assert_never(verb)


def _code(spec: AppSpec) -> dict[str, Any]:
    return {"artifact_id": spec.artifact_id, "version": spec.version}


def _secrets(table: SecretTable) -> dict[str, str]:
    """Class/NAME → where its value is read from."""
    return {
        f"{class_name}/{name}": ref.described()
        for class_name, secrets in sorted(table.items())
        for name, ref in sorted(secrets.items())
    }
