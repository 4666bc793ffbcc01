"""WebRTC into one app: whatever comes over a connection is asked by the caller whose offer opened it.

Law: who that is was settled when Hypha delivered the offer; nothing the peer sends changes it. A peer reaches this one
app and nothing else of the gateway.
"""

from __future__ import annotations

import asyncio
import functools
import io
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgpack
from aiortc import RTCConfiguration, RTCDataChannel, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from hypha_rpc.rpc import RPC
from hypha_rpc.webrtc_client import WebRTCConnection

from bioengine_runtime.contract.app import IceServer
from bioengine_runtime.gateway.errors import TooManyRequests
from bioengine_runtime.rpc.door import Invalid

Remote = Callable[..., Any]

MOST_PEERS = 100
"""Connections to one app."""
LONGEST_OFFER = 64 * 1024
LOST_AFTER_S = 30.0
"""How long a peer may be without an open channel, at its beginning or later."""
ANSWER_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 5.0
LARGEST_MESSAGE = 1024**2
"""What peers are told they may send at once. hypha-rpc's chunks are just above the 256 KiB that aiortc tells them."""
CHUNK = 256 * 1024
HEADROOM = 4096
"""hypha-rpc's own words around a chunk, with plenty to spare."""
LARGEST_HEAD = 1024
PROCESS = "services.built-in.message_cache.process"
UNSAID = 64 * 1024
"""The largest message of a peer that does not say, by RFC 8841."""


class Peers:
    """The connections into one app. `service` is what they are offered, each time a connection asks for it."""

    def __init__(
        self,
        app_id: str,
        workspace: Callable[[], str],
        service: Callable[[], Mapping[str, Any]],
        most: int = MOST_PEERS,
    ) -> None:
        self._app_id = app_id
        self._workspace = workspace
        self._service = service
        self._most = most
        self._peers: set[Peer] = set()

    def __len__(self) -> int:
        return sum(not peer.is_over() for peer in self._peers)

    async def answer(
        self, offer: object, context: Mapping[str, Any], ice_servers: Sequence[IceServer]
    ) -> dict[str, str]:
        """Open a connection for this caller. Raises Invalid for what is no offer, TooManyRequests above the limit."""
        sdp = _checked(offer)
        if len(self) >= self._most:
            raise TooManyRequests(
                f"{self._app_id} has {self._most} WebRTC connections, which is its limit; try again later, or call"
                " it without WebRTC"
            )
        peer = Peer(self._service, context, self._workspace(), ice_servers)
        self._peers.add(peer)
        try:
            return await asyncio.wait_for(peer.answer(sdp), ANSWER_TIMEOUT_S)
        except BaseException:
            await self._close(peer)
            raise

    def renew(self) -> None:
        """Offer the service anew to everybody who is connected, after its methods have changed."""
        for peer in self._peers:
            peer.offer_service()

    async def sweep(self) -> None:
        """Close what has gone. A peer that vanished without a word is noticed by its silence."""
        await asyncio.gather(*(self._close(peer) for peer in self._peers if peer.is_over()))

    async def close(self) -> None:
        await asyncio.gather(*(self._close(peer) for peer in self._peers))

    async def _close(self, peer: Peer) -> None:
        self._peers.discard(peer)
        with suppress(Exception):  # it may be half dead; what matters is that we are done with it
            await asyncio.wait_for(peer.close(), CLOSE_TIMEOUT_S)


class Peer:
    """One connection, and whose it is."""

    def __init__(
        self,
        service: Callable[[], Mapping[str, Any]],
        context: Mapping[str, Any],
        workspace: str,
        ice_servers: Sequence[IceServer],
    ) -> None:
        self._service = service
        self._workspace = workspace
        self._context = {key: context.get(key) for key in ("user", "ws", "from", "to")} | {"connection_type": "webrtc"}
        # An empty list is no server at all; leaving it out would be a public one of Google's.
        servers = [RTCIceServer(**one.model_dump(exclude_none=True)) for one in ice_servers]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._connection.on("datachannel", self._open)
        self._channel: RTCDataChannel | None = None
        self._rpc: Any = None
        self._chunk = CHUNK
        self._calls: set[asyncio.Future[Any]] = set()
        self._there_at = time.monotonic()

    async def answer(self, sdp: str) -> dict[str, str]:
        """Our half of the handshake, with the workspace that the peer has to name in its calls."""
        self._chunk = _chunk(sdp)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
        except Exception as error:  # aiortc's parser says what it does not like in many ways, asserts among them
            raise Invalid(f"the offer cannot be understood: {type(error).__name__} {error}".rstrip()) from None
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        ours = self._connection.localDescription
        told = re.sub(r"a=max-message-size:\d+", f"a=max-message-size:{LARGEST_MESSAGE}", ours.sdp)
        return {"sdp": told, "type": ours.type, "workspace": self._workspace}

    def offer_service(self) -> None:
        if self._rpc is not None:
            service = self._service()
            bound = {key: self._bound(value) if callable(value) else value for key, value in service.items()}
            self._rpc.add_service({**bound, "config": {"visibility": "public"}}, overwrite=True)

    def is_over(self) -> bool:
        """Closed by either side, or without an open channel for too long. To be asked every now and then."""
        channel, state, now = self._channel, self._connection.connectionState, time.monotonic()
        if channel is not None and channel.readyState == "open" and state == "connected":
            self._there_at = now
        closed = state in ("failed", "closed") or (channel is not None and channel.readyState == "closed")
        return closed or now - self._there_at > LOST_AFTER_S

    async def close(self) -> None:
        """End the calls in flight too: nobody is there to take their answers."""
        for call in tuple(self._calls):
            call.cancel()
        if self._rpc is not None:
            loop = asyncio.get_running_loop()
            handler = loop.get_exception_handler()
            await self._rpc.disconnect()
            loop.set_exception_handler(handler)  # hypha-rpc takes away the one of the whole process
        await self._connection.close()

    def _open(self, channel: RTCDataChannel) -> None:
        if self._channel is not None or not channel.label:
            channel.close()  # one channel is all that a client of ours needs
            return
        self._channel = channel
        self._rpc = RPC(
            _Channel(channel),
            client_id=channel.label,
            workspace=self._workspace,
            default_context={key: self._context[key] for key in ("user", "ws")},
            long_message_chunk_size=self._chunk,
            silent=True,
        )
        self.offer_service()

    def _bound(self, function: Remote) -> Remote:
        @functools.wraps(function)
        def remote(*args: Any, context: object = None, **kwargs: Any) -> Any:  # noqa: ARG001 - what a peer says of itself
            answer = function(*args, context=dict(self._context), **kwargs)
            if isinstance(answer, asyncio.Future):
                self._calls.add(answer)
                answer.add_done_callback(self._calls.discard)
            return answer

        return remote


class _Channel(WebRTCConnection):
    """hypha-rpc's connection, so that its Python client takes large answers too.

    That client puts the parts of one together only if the message that asks for it names a user, as Hypha would.
    """

    async def emit_message(self, data: bytes) -> None:
        if PROCESS.encode() in data[:LARGEST_HEAD]:
            unpacker = msgpack.Unpacker(io.BytesIO(data))
            head = unpacker.unpack()
            if head.get("method") == PROCESS:
                data = b"".join((msgpack.Packer().pack({**head, "user": None}), data[unpacker.tell() :]))
        await super().emit_message(data)


def _checked(offer: object) -> str:
    """The SDP of an offer. Media is refused: every stream costs a decoder, and no app takes one."""
    sdp = offer.get("sdp") if isinstance(offer, Mapping) else None
    if not isinstance(offer, Mapping) or not isinstance(sdp, str) or offer.get("type") != "offer":
        raise Invalid('an offer is {"sdp": text, "type": "offer"}, as get_rtc_service of hypha-rpc makes it')
    if len(sdp) > LONGEST_OFFER:
        raise Invalid(f"the offer has {len(sdp)} characters, at most {LONGEST_OFFER} are taken")
    kinds = re.findall(r"^m=(\w+)", sdp, re.MULTILINE)
    if kinds != ["application"]:
        raise Invalid(f"an offer carries one data channel and no media; this one has {', '.join(kinds) or 'nothing'}")
    return sdp


def _chunk(sdp: str) -> int:
    """How much of a large answer goes into one message, so that the peer takes it."""
    said = re.search(r"^a=max-message-size:(\d+)", sdp, re.MULTILINE)
    most = int(said[1]) if said else UNSAID
    return max(min(most or CHUNK, CHUNK), UNSAID) - HEADROOM
