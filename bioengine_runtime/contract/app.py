"""AppSpec: one instance wanted. Total: nothing in it means "inherit" and nothing means "make one up"."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from bioengine_runtime.contract.base import ENTIRE, AppId, Closed, EnvName, JsonValue
from bioengine_runtime.contract.manifest import AuthorizedUsers

HYPHA_TOKEN = "HYPHA_TOKEN"
"""Name under which an app's own Hypha token reaches its environment; always a secret, for every class."""


class Autoscaling(Closed):
    """Bounds and target of Ray Serve's autoscaler for one deployment; the number between is Ray's."""

    min_replicas: int = Field(default=1, ge=0, description="Replicas kept when idle.")
    max_replicas: int = Field(ge=1, description="Replicas at most.")
    target_ongoing_requests: float = Field(default=2.0, gt=0, description="Requests in flight per replica to aim for.")

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Autoscaling:
        if self.min_replicas > self.max_replicas:
            bounds = f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            raise ValueError(f"{bounds}; lower the one or raise the other")
        return self


class Probe(Closed):
    """One call that shows whether an app does its work: made to a version that is up, before it is called good."""

    method: str = Field(min_length=1, description="Method of the entry class to call.")
    args: dict[str, JsonValue] = Field(default_factory=dict, description="Its arguments, by name.")
    expected: JsonValue = Field(
        default=None,
        description="What it must answer; of a mapping only the keys given here are compared. Left out: any answer.",
    )
    timeout_s: float = Field(default=30.0, gt=0, description="Seconds the answer may take.")


class Rollout(Closed):
    """How a new version replaces the running one, and when it is good."""

    surge: bool = Field(
        default=True, description="Start the new replica before the old one stops; needs room for one more."
    )
    health_timeout_s: float = Field(
        default=600.0, gt=0, description="Seconds until a version that does not come up is given up."
    )
    drain_timeout_s: float = Field(
        default=60.0, gt=0, description="Seconds an old replica may take to finish its requests."
    )
    stable_s: float = Field(
        default=0.0, ge=0, description="Seconds a new version must stay healthy after the switch to be called good."
    )
    probe: Probe | None = Field(default=None, description="A call that a new version must answer rightly.")
    rollback: bool = Field(
        default=True, description="Bring the last good version back when a new one fails after the switch."
    )
    test: Literal["before-traffic", "background"] = Field(
        default="before-traffic",
        description="When `test_deployment` runs: before a replica takes traffic (a failure fails the start), or beside"
        " the first requests (a failure makes the replica unhealthy).",
    )


class IceServer(Closed):
    """One STUN or TURN server for WebRTC. Every caller of the app is told it, the credential included."""

    urls: str | list[str] = Field(description="stun:host:port, turn:host:port, or a list of them.")
    username: str | None = Field(default=None, description="User name of a TURN server.")
    credential: str | None = Field(default=None, description="Short-lived password of a TURN server; no secret.")


class AppSpec(Closed):
    """Everything that decides how one app runs, but for the values of its secrets (only their names are here)."""

    __slots__ = ("_known_code_digest", "_known_digest")

    app_id: AppId
    artifact_id: str = Field(pattern=r"^[^/\s]+/[^/\s]+$", description="workspace/alias")
    version: str = Field(min_length=1, description="Name of one immutable artifact version.")
    kwargs: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    env: dict[str, dict[EnvName, str]] = Field(default_factory=dict)
    secrets: dict[str, list[EnvName]] = Field(default_factory=dict, description="class or * → names")
    authorized_users: AuthorizedUsers
    disable_gpu: bool = False
    max_ongoing_requests: int | None = Field(default=None, ge=1, description="None: what the code says, or 10.")
    max_queued_requests: int | None = Field(default=None, ge=1, description="None: what the code says, or 100.")
    replicas: dict[str, int] = Field(default_factory=dict, description="class or * → number")
    autoscaling: dict[str, Autoscaling] = Field(default_factory=dict, description="class or * → bounds")
    rollout: Rollout = Rollout()
    auto_redeploy: bool = False
    debug: bool = False
    ice_servers: list[IceServer] = Field(default_factory=list[IceServer])

    @field_validator("secrets")
    @classmethod
    def _names_are_ordered(cls, secrets: dict[str, list[str]]) -> dict[str, list[str]]:
        return {key: sorted(set(names)) for key, names in sorted(secrets.items()) if names}

    def digest(self) -> str:
        """Identity of what is wanted; equal digests mean nothing to do. SHA-256 over canonical JSON.

        Computed once: a slot is no part of equality, dumps or copies, so no copy can carry another spec's digest."""
        known: str | None = getattr(self, "_known_digest", None)
        if known is None:
            known = _digest(self.model_dump(mode="json"))
            object.__setattr__(self, "_known_digest", known)
        return known

    def code_digest(self) -> str:
        """The part of the digest that needs new replicas when it changes (given to Ray as deployment version)."""
        known: str | None = getattr(self, "_known_code_digest", None)
        if known is None:
            known = _digest(self.model_dump(mode="json", exclude=set(IN_PLACE_FIELDS)))
            object.__setattr__(self, "_known_code_digest", known)
        return known


IN_PLACE_FIELDS = frozenset(
    {
        "authorized_users",
        "auto_redeploy",
        "autoscaling",
        "ice_servers",
        "max_ongoing_requests",
        "max_queued_requests",
        "replicas",
        "rollout",
    }
)
"""Fields of AppSpec that a running app takes over without a new replica."""


def for_class(table: Mapping[str, Mapping[str, JsonValue]], class_name: str) -> dict[str, JsonValue]:
    """Values for one deployment class: those for `*`, overridden by its own."""
    return {**table.get(ENTIRE, {}), **table.get(class_name, {})}


def fingerprint(key: bytes, value: str) -> str:
    """Keyed hash of a secret value: tells that it changed, and nothing else to who lacks the key. HMAC-SHA-256."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:16]


def _digest(value: JsonValue) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
