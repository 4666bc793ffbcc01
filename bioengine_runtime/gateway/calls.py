"""From a call on Hypha to the app's replica and back: who may, which method, and the app's own error if it raises.

The functions given to Hypha look up the offer at every call: an update changes what they do, never which they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.handle import DeploymentHandle

from bioengine_runtime.access import Caller, may_call
from bioengine_runtime.door import answering, plain
from bioengine_runtime.gateway.offer import APP_TYPE, OWN_METHODS, Offer

Remote = Callable[..., Any]
NOT_STREAMED = "handle.options(stream=True)"
"""Part of what Serve says when a generator is called as if it were not one; it has not run anything by then."""


class AppCalls:
    """Calls into one app, across its updates."""

    def __init__(self, offer: Offer, admins: Callable[[], Collection[str]]) -> None:
        self.offer = offer
        self.in_flight = 0
        self._admins = admins
        self._streams: set[str] = set()
        self._handle = _handle(offer)

    def take_over(self, offer: Offer) -> None:
        """Serve this offer from the next call on."""
        if offer.entry != self.offer.entry:
            self._handle = _handle(offer)
        if offer.code_digest != self.offer.code_digest:
            self._streams.clear()
        self.offer = offer

    def service(self) -> dict[str, Any]:
        """What is handed to Hypha's `register_service`."""
        offer = self.offer
        return {
            "id": offer.app_id,
            "name": offer.name,
            "type": APP_TYPE,
            "description": offer.description,
            "config": {"visibility": "public", "require_context": True},
            **{one.name: self._remote(one.name, one.schema) for one in offer.methods if one.name not in OWN_METHODS},
            "get_load": self._get_load,
            "get_num_pcs": self._get_num_pcs,
            "get_rtc_service_id": self._get_rtc_service_id,
        }

    def _remote(self, name: str, schema: dict[str, Any]) -> Remote:
        def remote(*args: Any, context: dict[str, Any] | None = None, **kwargs: Any) -> asyncio.Future[Any]:
            return answering(self._call(name, args, kwargs, context or {}), cancel_with_caller=True)

        remote.__name__ = name
        remote.__doc__ = schema.get("description")
        setattr(remote, "__schema__", schema)  # noqa: B010
        return remote

    async def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], context: dict[str, Any]) -> Any:
        offer = self.offer
        caller = Caller.from_context(context)
        method = offer.method(name)
        if method is None:
            raise AttributeError(f"{offer.app_id} has no method {name} any more")
        if not may_call(caller, name, offer.authorized_users, self._admins(), offer.owner):
            raise PermissionError(f"{caller} may not call {name} of {offer.app_id}")
        if method.wants_context:
            kwargs["context"] = dict(context)
        if name in self._streams:
            return self._stream(name, args, kwargs)
        self.in_flight += 1
        try:
            return await self._ask(name, args, kwargs)
        except TypeError as error:
            if NOT_STREAMED not in str(error):
                raise
            self._streams.add(name)
            return self._stream(name, args, kwargs)
        finally:
            self.in_flight -= 1

    async def _ask(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        response = self._handle.options(method_name=name).remote(*args, **kwargs)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except RayError as error:
            raise _as_the_app_raised(error, self.offer.app_id) from None

    async def _stream(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        self.in_flight += 1
        try:
            items: Any = self._handle.options(method_name=name, stream=True).remote(*args, **kwargs)
            async for item in items:
                yield item
        except RayError as error:
            raise plain(_as_the_app_raised(error, self.offer.app_id)) from None
        finally:
            self.in_flight -= 1

    def _get_load(self, context: dict[str, Any] | None = None) -> float:  # noqa: ARG002
        """Share of the app's capacity in use, 0 to 1."""
        return min(self.in_flight / self.offer.capacity, 1.0)

    def _get_num_pcs(self, context: dict[str, Any] | None = None) -> int:  # noqa: ARG002
        """Number of WebRTC connections."""
        return 0

    def _get_rtc_service_id(self, context: dict[str, Any] | None = None) -> str | None:  # noqa: ARG002
        """Id of the service that opens WebRTC connections; null: there is none."""
        return None


def _handle(offer: Offer) -> DeploymentHandle:
    return serve.get_deployment_handle(offer.entry, app_name=offer.app_id)


def _as_the_app_raised(error: BaseException, app_id: str) -> Exception:
    """The exception under Ray's wrappers, of which there is one per deployment the call went through."""
    while isinstance(error, RayTaskError):
        cause = getattr(error, "cause", None)
        if not isinstance(cause, Exception) or cause is error:
            return RuntimeError(_last_line(str(error)))
        error = cause
    if isinstance(error, RayError):
        return RuntimeError(f"{app_id} could not answer: {_last_line(str(error)) or type(error).__name__}")
    assert isinstance(error, Exception)
    return error


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
