"""The worker's token: kept in one file, renewed in time, never replaced by something worse."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

from bioengine_runtime.claims import Claims, claims_of
from bioengine_runtime.local.tokens import mint_user_token
from bioengine_runtime.worker.tokens import NoToken, TokenFile, TokenKeeper


def a_token(lifetime_s: int = 100, grants: Any = None, user: str = "ann") -> str:
    return mint_user_token(
        jwt_secret="s",
        user_id=user,
        email=f"{user}@lab.example",
        grants=grants or {"lab": "a"},
        workspace="lab",
        lifetime_seconds=lifetime_s,
    )


class Hypha:
    """A session whose server mints tokens, or does not."""

    workspace = "lab"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.is_away = False
        self.gives: int | None = None

    async def connected(self) -> Any:
        if self.is_away:
            raise TimeoutError
        return self

    async def generate_token(self, config: dict[str, Any]) -> str:
        self.asked.append(config)
        return a_token(self.gives or config["expires_in"] + 10, user="renewed")


class Given:
    """What the operator gave, which may change or vanish."""

    def __init__(self, token: str | None) -> None:
        self.token = token

    def __call__(self) -> str | None:
        return self.token


def test_a_token_says_when_it_ends_and_what_it_may() -> None:
    claims = claims_of(a_token(100, {"lab": "rw", "other": "r"}))
    assert claims.lifetime_s == 100 and claims.permission("lab") == "read_write"
    assert claims.issued_at and not claims.is_due(claims.issued_at + 49) and claims.is_due(claims.issued_at + 51)


@pytest.mark.parametrize("text", ["opaque", "a.b.c", "e30.e30.e30", "e30.W10.e30", "..."])
def test_a_token_that_says_nothing_is_never_due(text: str) -> None:
    assert claims_of(text) == Claims() and not claims_of(text).is_due(1e12)


def test_what_is_given_is_copied_for_its_owner_only(tmp_path: Path) -> None:
    file = TokenFile(tmp_path, Given(token := a_token()))
    file.settle()
    assert file.path.read_text() == token
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in tmp_path.iterdir())


def test_a_renewed_one_is_found_again_at_the_next_start_and_without_what_was_given(tmp_path: Path) -> None:
    given, longer = Given(a_token()), a_token(200)
    first = TokenFile(tmp_path, given)
    first.settle()
    first.renew(longer)
    assert TokenFile(tmp_path, given).settle() == claims_of(longer)
    given.token = None
    assert TokenFile(tmp_path, given).settle() == claims_of(longer)
    assert first.path.read_text() == longer


def test_a_new_one_given_takes_the_place_of_a_renewed_one(tmp_path: Path) -> None:
    given = Given(a_token())
    file = TokenFile(tmp_path, given)
    file.settle()
    file.renew(a_token(200))
    given.token = a_token(50, user="bob")
    file.settle()
    assert file.path.read_text() == given.token


def test_without_any_token_the_worker_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(NoToken, match="--token-file"):
        TokenFile(tmp_path, Given(None)).settle()


async def test_it_is_renewed_in_its_second_half_with_the_same_rights_and_lifetime(tmp_path: Path) -> None:
    hypha, now = Hypha(), 0.0
    file = TokenFile(tmp_path, Given(given := a_token(100, {"lab": "rw"})))
    keeper = TokenKeeper(file, hypha, lambda: now)
    issued = claims_of(given).issued_at or 0.0
    now = issued + 40
    await keeper.look()
    assert hypha.asked == [] and keeper.expires_at == issued + 100
    now = issued + 60
    await keeper.look()
    assert hypha.asked == [{"workspace": "lab", "permission": "read_write", "expires_in": 100}]
    assert (keeper.expires_at or 0) > issued + 100 and claims_of(file.path.read_text()).expires_at == keeper.expires_at


async def test_a_server_that_is_away_ends_nothing_and_the_token_stays(tmp_path: Path) -> None:
    hypha = Hypha()
    hypha.is_away = True
    file = TokenFile(tmp_path, Given(given := a_token(100)))
    keeper = TokenKeeper(file, hypha, lambda: (claims_of(given).issued_at or 0.0) + 60)
    slept = 0

    async def sleep(_: float) -> None:
        nonlocal slept
        slept += 1
        hypha.is_away = slept < 3
        if slept == 4:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keeper.run(sleep)
    assert len(hypha.asked) == 1 and file.path.read_text() != given


async def test_one_that_does_not_expire_is_left_alone(tmp_path: Path) -> None:
    hypha = Hypha()
    keeper = TokenKeeper(TokenFile(tmp_path, Given("opaque")), hypha, lambda: 1e12)
    await keeper.look()
    assert hypha.asked == [] and keeper.expires_at is None


async def test_a_shorter_one_never_replaces_a_longer_one(tmp_path: Path) -> None:
    """Fault of the reference: its renewal replaced a long-lived token by one of three hours."""
    hypha = Hypha()
    file = TokenFile(tmp_path, Given(given := a_token(1000)))
    keeper = TokenKeeper(file, hypha, lambda: (claims_of(given).issued_at or 0.0) + 600)
    hypha.gives = 10
    with pytest.raises(RuntimeError, match="longer"):
        await keeper.look()
    assert file.path.read_text() == given
