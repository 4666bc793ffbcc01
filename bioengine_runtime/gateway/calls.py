"""From a call on Hypha to the app's replica and back: who may, which method, and the app's own error if it raises.

The functions given to Hypha look up the offer at every call: an update changes what they do, never which they are.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable, Collection
from typing import TYPE_CHECKING, Any

from grpc.aio import AioRpcError
from ray.exceptions import RayError, UnserializableException
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from bioengine_runtime.apps.calling import FOR_GATEWAY, AsRaised, is_lost, last_line, under_ray
from bioengine_runtime.gateway.errors import TooManyRequests
from bioengine_runtime.gateway.names import rtc_name
from bioengine_runtime.gateway.offer import APP_TYPE, OWN_METHODS, Offer
from bioengine_runtime.gateway.weight import is_light
from bioengine_runtime.rpc.access import Caller, may_call
from bioengine_runtime.rpc.callers import Callers
from bioengine_runtime.rpc.door import answering, named, plain

if TYPE_CHECKING:
    from bioengine_runtime.gateway.rtc import Peers

log = logging.getLogger("ray.serve")

Remote = Callable[..., Any]
NOT_STREAMED = "handle.options(stream=True)"
"""Part of what Serve says when a generator is called as if it were not one; it has not run anything by then."""
NO_SUCH_METHOD = "that does not exist"
"""Part of what Serve says of a method that the replica does not have."""


class AppCalls:
    """Calls into one app, across its updates. `service_id` gives the full id of a service of this gateway."""

    def __init__(
        self, offer: Offer, admins: Callable[[], Collection[str]], service_id: Callable[[str], str], callers: Callers
    ) -> None:
        self.offer = offer
        self.told: Offer | None = None
        """What Hypha has been told of the app."""
        self._at_work: set[object] = set()
        self.takes_peers = False
        """Whether the service that opens WebRTC connections is registered."""
        self._admins = admins
        self._service_id = service_id
        self._callers = callers
        self._streams: set[str] = set()
        self._takes_messages = True
        """Not so while its replicas are of a release that answers only through Ray's store of objects."""
        self._handles: dict[tuple[str, bool], Any] = {}
        self.peers = _peers(offer.app_id, lambda: service_id("").split("/")[0], self.service)

    @property
    def in_flight(self) -> int:
        """Calls and streams that have begun and not ended, those that wait for a place included."""
        return len(self._at_work)

    def take_over(self, offer: Offer) -> None:
        """Serve this offer from the next call on."""
        before, self.offer = self.offer, offer
        if offer.entry != before.entry:
            self._handles.clear()
        if offer.ice_servers != before.ice_servers:
            self.takes_peers = False  # Hypha is to be told them
        if offer.code_digest != before.code_digest:
            self._streams.clear()
            self._takes_messages = True
        if self.peers is not None and not offer.looks_like(before):
            self.peers.renew()

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
            "get_load": _own(self._get_load),
            "get_num_pcs": _own(self._get_num_pcs),
            "get_rtc_service_id": _own(self._get_rtc_service_id),
        }

    def rtc_service(self) -> dict[str, Any]:
        """The service that opens WebRTC connections, as `get_rtc_service` of hypha-rpc expects it."""
        config: dict[str, Any] = {"visibility": "public", "require_context": True}
        if self.offer.ice_servers:
            config["ice_servers"] = [one.model_dump(exclude_none=True) for one in self.offer.ice_servers]
        name = f"{self.offer.name} (WebRTC)"
        return {"id": rtc_name(self.offer.app_id), "name": name, "config": config, "offer": _own(self._open_peer)}

    def _open_peer(self, params: Any, context: dict[str, Any] | None = None) -> asyncio.Future[Any]:
        """Answer the offer of a WebRTC connection; calls over it are made by the caller of this."""
        return answering(self._answer_peer(params, context or {}), cancel_with_caller=True)

    async def _answer_peer(self, params: Any, context: dict[str, Any]) -> dict[str, str]:
        offer, caller = self.offer, Caller.from_context(context)
        if self.peers is None:
            raise RuntimeError(f"{offer.app_id} takes no WebRTC connections here; call it without")
        if not any(self._may_call(caller, method.name) for method in offer.methods):
            raise PermissionError(f"{caller} may not call {offer.app_id}")
        return await self.peers.answer(params, context, offer.ice_servers)

    def _may_call(self, caller: Caller, method: str) -> bool:
        return may_call(caller, method, self.offer.authorized_users, self._admins(), self.offer.owner)

    def _remote(self, name: str, schema: dict[str, Any]) -> Remote:
        def remote(*args: Any, context: dict[str, Any] | None = None, **kwargs: Any) -> asyncio.Future[Any]:
            return answering(self._call(name, args, kwargs, context or {}), cancel_with_caller=True)

        remote.__name__ = name
        remote.__doc__ = schema.get("description")
        setattr(remote, "__schema__", schema)  # noqa: B010 - no attribute that type checkers know
        return remote

    async def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], context: dict[str, Any]) -> Any:
        offer = self.offer
        caller = Caller.from_context(context)
        method = offer.method(name)
        if method is None:
            raise AttributeError(f"{offer.app_id} has no method {name} any more")
        if not self._may_call(caller, name):
            raise PermissionError(f"{caller} may not call {name} of {offer.app_id}")
        if method.wants_context:
            kwargs["context"] = dict(context)
        client = str(context.get("from"))
        if name in self._streams:
            return self._stream(client, name, args, kwargs)
        me = object()
        self._at_work.add(me)
        try:
            return await self._callers.ending_with(client, self._ask(name, args, kwargs))
        except TypeError as error:
            if NOT_STREAMED not in str(error):
                raise
            self._streams.add(name)
            return self._stream(client, name, args, kwargs)
        finally:
            self._at_work.discard(me)

    async def _ask(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._takes_messages and is_light(args, kwargs):
            try:
                return await self._answer(self._handle(FOR_GATEWAY + name, message=True).remote(args, kwargs))
            except RayServeException as error:
                if NO_SUCH_METHOD not in str(error):
                    raise
                self._takes_messages = False
        return await self._answer(self._handle(name).remote(*args, **kwargs))

    async def _answer(self, response: Any) -> Any:
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except AsRaised as raised:
            raise named(raised.name, raised.text) from None
        except BackPressureError as full:
            raise self._at_capacity(full) from None
        except (RayError, AioRpcError) as error:
            raise _as_the_app_raised(error, self.offer.app_id) from None

    async def _stream(
        self, client: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncIterator[Any]:
        me = object()
        self._at_work.add(me)
        items: Any = self._handle(name, stream=True).remote(*args, **kwargs)

        def end() -> None:
            self._at_work.discard(me)
            items.cancel()

        try:
            with self._callers.calling(client, end):
                async for item in items:
                    yield item
        except (asyncio.CancelledError, GeneratorExit):
            items.cancel()
            raise
        except BackPressureError as full:
            raise plain(self._at_capacity(full)) from None
        except RayError as error:
            raise plain(_as_the_app_raised(error, self.offer.app_id)) from None
        finally:
            self._at_work.discard(me)

    def _handle(self, name: str, *, stream: bool = False, message: bool = False) -> Any:
        """Serve's handle of one method; to make one costs as much as to use it. All share one router.

        `message`: call and answer go straight to the replica and back, in one message each. That is twice as fast as
        through Ray's store of objects, with the same routing, and for light arguments only."""
        if handle := self._handles.get((name, stream)):
            return handle
        root = self._handles.get(("", False))
        if root is None:
            root = self._handles["", False] = _router(self.offer)
        made = root.options(method_name=name, stream=stream, _by_reference=not message)
        return self._handles.setdefault((name, stream), made)

    def _at_capacity(self, full: BackPressureError) -> TooManyRequests:
        waiting: int = full.args[0]
        working = max(self.in_flight - 1 - waiting, 0)
        return TooManyRequests(
            f"{self.offer.app_id} is at its capacity: {working} requests are being worked on and {waiting} wait;"
            " try again later"
        )

    def _get_load(self, context: dict[str, Any] | None = None) -> float:  # noqa: ARG002 - passed to every method
        """Share of the app's capacity in use, 0 to 1."""
        return min(self.in_flight / self.offer.capacity, 1.0)

    def _get_num_pcs(self, context: dict[str, Any] | None = None) -> int:  # noqa: ARG002 - passed to every method
        """Number of WebRTC connections."""
        return len(self.peers) if self.peers is not None else 0

    def _get_rtc_service_id(self, context: dict[str, Any] | None = None) -> str | None:  # noqa: ARG002 - passed to every method
        """Id of the service that opens WebRTC connections; null: there is none."""
        return self._service_id(rtc_name(self.offer.app_id)) if self.takes_peers else None


def _peers(app_id: str, workspace: Callable[[], str], service: Callable[[], dict[str, Any]]) -> Peers | None:
    """None where aiortc cannot be used: then the app is called through Hypha alone."""
    try:
        from bioengine_runtime.gateway.rtc import Peers
    except ImportError as error:
        log.warning("event=no_webrtc app=%s error=%s", app_id, error)
        return None
    return Peers(app_id, workspace, service)


def _router(offer: Offer) -> Any:
    """Serve's handle with its router on our loop: a fifth more calls/s (Ray 2.60, 1 KB) than in a thread of its own."""
    handle = DeploymentHandle(offer.entry, app_name=offer.app_id)
    handle._init(_run_router_in_separate_loop=False)
    return handle


def _own(method: Remote) -> Remote:
    """A function of its own at every registration. hypha-rpc remembers what it registered by weak references, and two
    bound methods of one object are equal: registered again, the new one would be forgotten together with the old."""

    @functools.wraps(method)
    def remote(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return remote


def _as_the_app_raised(error: Exception, app_id: str) -> Exception:
    """The app's own exception, or that there is no answer. Ray's own words stay here: they name nodes and addresses."""
    error = under_ray(error)
    if isinstance(error, UnserializableException):  # the app's own, of a class that only the app has
        return RuntimeError(last_line(str(error)))
    if not is_lost(error):
        return error
    is_grpc = isinstance(error, AioRpcError)
    kind, why = (error.code().name, error.details()) if is_grpc else (type(error).__name__, str(error))
    log.warning("event=not_answered app=%s kind=%s why=%r", app_id, kind, last_line(why or "")[:500])
    return RuntimeError(
        f"{app_id} could not answer: its replica, or the way to it, was lost ({kind}); the call may have run or not"
    )
