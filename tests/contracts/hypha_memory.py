"""What the memory must hold besides its contract, on a real Hypha: others may write there, too."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

import pytest

from reconciler.adapters.artifacts import HyphaArtifacts
from reconciler.adapters.hypha import HyphaSession
from reconciler.adapters.memory import MANAGER, HyphaMemory
from reconciler.errors import HeldElsewhere, LeaseLost, Spoiled
from reconciler.lease import Lease
from reconciler.planning.memory import NOTHING, Holder
from tests.contracts.ports import REMEMBERED, MemoryContract, an_entry


class HyphaMemoryContract(MemoryContract):
    """`session` reaches the Hypha; each test has a cluster of its own."""

    key = b"k" * 32

    @pytest.fixture
    def cluster(self) -> str:
        return f"lab-{secrets.token_hex(4)}"

    @pytest.fixture
    def memory(self, session: HyphaSession, cluster: str) -> HyphaMemory:
        return HyphaMemory(session, cluster, lambda: self.key, new_key=lambda: self.key)

    async def test_rc_12_what_somebody_changed_is_not_known(
        self, memory: HyphaMemory, session: HyphaSession, cluster: str
    ) -> None:
        await memory.write(REMEMBERED)
        artifact_id = f"{await session.workspace()}/reconcile-{cluster}"
        kept: Mapping[str, Any] = (await self.ask(session, "read", artifact_id=artifact_id, silent=True))["manifest"]
        spoiled: list[tuple[Mapping[str, Any], str]] = [
            ({**kept, "body": kept["body"].replace("anna", "mallory")}, "changed by somebody"),
            ({**kept, "body": kept["body"][:-9]}, "changed by somebody"),
            ({**kept, "seal": "0" * 64}, "changed by somebody"),
            ({**kept, "schema_": "reconcile.memory/v2"}, "we know reconcile.memory/v1"),
            ({"name": "reconcile", "holder": None}, "not written by a reconciler"),
            ({**kept, "seal": "ü" * 64}, "changed by somebody"),
        ]
        for manifest, words in spoiled:
            await self.ask(session, "edit", artifact_id=artifact_id, manifest=manifest)
            with pytest.raises(Spoiled, match=words) as error:
                await memory.read()
            assert error.value.hint
        await memory.write(REMEMBERED)  # a person may start it anew
        assert await memory.read() == REMEMBERED

    async def test_rc_12_an_older_one_that_somebody_put_back_is_not_known(
        self, memory: HyphaMemory, session: HyphaSession, cluster: str
    ) -> None:
        """Its seal fits, and the order that was given since is not in it."""
        await memory.write(NOTHING)
        artifact_id = f"{await session.workspace()}/reconcile-{cluster}"
        older = (await self.ask(session, "read", artifact_id=artifact_id, silent=True))["manifest"]
        await memory.write(REMEMBERED)
        other = HyphaMemory(session, cluster, lambda: self.key)
        assert await other.read() == REMEMBERED
        await self.ask(session, "edit", artifact_id=artifact_id, manifest=older)
        for one in (memory, other):
            with pytest.raises(Spoiled, match="somebody put it back") as error:
                await one.read()
            assert "again" in error.value.hint
        assert await HyphaMemory(session, cluster, lambda: self.key).read() == NOTHING  # it never saw the newer one

    async def test_who_writes_without_a_key_makes_one_only_where_nothing_is(
        self, memory: HyphaMemory, session: HyphaSession, cluster: str
    ) -> None:
        made: list[bytes] = []

        def new_key() -> bytes:
            made.append(self.key)
            return self.key

        fresh = HyphaMemory(session, cluster, lambda: next(iter(made), None), new_key=new_key)
        await memory.write(REMEMBERED)
        for ask in (fresh.read(), fresh.write(NOTHING), fresh.append([an_entry()])):
            with pytest.raises(Spoiled, match="this installation has no key") as error:
                await ask
            assert "RECONCILE_KEY_FILE" in error.value.hint
        assert not made and await memory.read() == REMEMBERED
        await fresh.start_anew()  # a person said so
        assert made and await memory.read() == NOTHING
        made.clear()
        first = HyphaMemory(session, f"{cluster}-2", lambda: next(iter(made), None), new_key=new_key)
        await first.write(REMEMBERED)
        assert made and await first.read() == REMEMBERED

    async def test_what_is_sealed_for_another_cluster_does_not_fit_here(
        self, memory: HyphaMemory, session: HyphaSession, cluster: str
    ) -> None:
        await memory.write(REMEMBERED)
        other = HyphaMemory(session, f"{cluster}-2", lambda: self.key)
        await other.write(REMEMBERED)
        workspace = await session.workspace()
        taken = await self.ask(session, "read", artifact_id=f"{workspace}/reconcile-{cluster}-2", silent=True)
        await self.ask(session, "edit", artifact_id=f"{workspace}/reconcile-{cluster}", manifest=taken["manifest"])
        with pytest.raises(Spoiled):
            await memory.read()

    async def test_without_a_key_it_is_read_and_never_written(
        self, memory: HyphaMemory, session: HyphaSession, cluster: str
    ) -> None:
        await memory.write(REMEMBERED)
        reader = HyphaMemory(session, cluster, lambda: None)
        assert await reader.read() == REMEMBERED
        with pytest.raises(Spoiled, match="no key"):
            await reader.write(REMEMBERED)
        with pytest.raises(Spoiled, match="another installation"):
            await HyphaMemory(session, cluster, lambda: b"another").read()

    async def test_an_entry_that_somebody_changed_hides_no_other(
        self, memory: HyphaMemory, session: HyphaSession, cluster: str
    ) -> None:
        await memory.append([an_entry(0)])
        await memory.append([an_entry(1)])
        page = await self.ask(session, "list", parent_id=f"{await session.workspace()}/reconcile-history-{cluster}")
        first = page[0]
        forged = {**first["manifest"], "body": "[]"}
        await self.ask(session, "edit", artifact_id=first["id"], manifest=forged)
        newest = await memory.history(10)
        assert newest[0] == an_entry(1) and newest[1].result == "spoiled"

    async def test_what_others_put_on_the_shelf_hides_no_entry(
        self, memory: HyphaMemory, session: HyphaSession, cluster: str
    ) -> None:
        await memory.append([an_entry(0)])
        shelf = f"{await session.workspace()}/reconcile-history-{cluster}"
        notes = {"alias": f"{cluster}-notes", "type": "generic", "manifest": {"name": "Notes"}}
        await self.ask(session, "create", parent_id=shelf, **notes)
        again = HyphaMemory(session, cluster, lambda: self.key)
        await again.append([an_entry(1)])
        assert [entry.result for entry in await again.history(10)] == ["done", "spoiled", "done"]

    async def test_it_is_not_among_the_apps(self, memory: HyphaMemory, session: HyphaSession, cluster: str) -> None:
        await memory.write(REMEMBERED)
        await memory.append([an_entry()])
        assert not [one for one in await HyphaArtifacts(session).list() if cluster in one]

    async def test_the_history_is_bounded(self, memory: HyphaMemory, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("reconciler.adapters.memory.MOST_BATCHES", 3)
        for number in range(5):
            await memory.append([an_entry(number)])
        assert list(await memory.history(10)) == [an_entry(4), an_entry(3), an_entry(2)]

    async def test_rx_01_of_two_sessions_at_once_one_is_the_holder(
        self, memory: HyphaMemory, session: HyphaSession, cluster: str
    ) -> None:
        for _ in ("nothing is there yet", "somebody let it go"):
            other = HyphaMemory(session, cluster, lambda: self.key)
            leases = Lease("first", host="a"), Lease("second", host="b")
            took = zip(leases, (memory, other), strict=True)
            got = await asyncio.gather(*(lease.hold(there) for lease, there in took), return_exceptions=True)
            (winner,) = [one for one in got if isinstance(one, Holder)]
            assert winner == (await memory.read()).holder
            assert {type(one) for one in got} == {Holder, HeldElsewhere}, got
            await leases[got.index(winner)].let_go((memory, other)[got.index(winner)])

    async def test_rx_02_a_holder_that_was_overtaken_is_fenced(
        self, memory: HyphaMemory, session: HyphaSession, cluster: str
    ) -> None:
        other = HyphaMemory(session, cluster, lambda: self.key)
        paused, next_one = Lease("paused", host="a", pid=1), Lease("next", host="a", pid=1)  # a former life of its own
        await paused.hold(memory)
        await next_one.hold(other)
        with pytest.raises(LeaseLost, match="next"):
            await paused.still(memory)

    async def ask(self, session: HyphaSession, method: str, **arguments: Any) -> Any:
        return await session.ask(MANAGER, method, timeout_s=20.0, **arguments)
