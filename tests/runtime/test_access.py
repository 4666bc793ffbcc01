"""Who may call what."""

from __future__ import annotations

import pytest

from bioengine_runtime.rpc.access import Caller, both, is_admin, may_call, owns

ALICE = Caller("user-alice", "alice@lab.example")
BOB = Caller("user-bob", "bob@lab.example")
ROOT = Caller("root", None)
ANONYMOUS = Caller("anonymouz-ab12", None, anonymous=True)
NOBODY = Caller.from_context(None)

Users = list[str] | dict[str, list[str]]


def test_a_listed_id_or_email_may_call() -> None:
    assert may_call(ALICE, "run", ["alice@lab.example"], [])
    assert may_call(ALICE, "run", ["user-alice"], [])
    assert not may_call(BOB, "run", ["user-alice", "alice@lab.example"], [])


@pytest.mark.parametrize("caller", [ALICE, BOB, ROOT, ANONYMOUS, NOBODY])
def test_a_star_lets_everybody_call(caller: Caller) -> None:
    assert may_call(caller, "run", ["*"], [])


@pytest.mark.parametrize("users", [None, [], {}, {"other": ["*"]}])
@pytest.mark.parametrize("caller", [ALICE, ROOT, ANONYMOUS, NOBODY])
def test_who_is_not_named_may_not_call(caller: Caller, users: list[str] | dict[str, list[str]] | None) -> None:
    assert not may_call(caller, "run", users, [])


@pytest.mark.parametrize("caller", [ROOT, ANONYMOUS, NOBODY])
def test_a_missing_email_matches_nothing(caller: Caller) -> None:
    assert not may_call(caller, "run", [None, ""], [])  # type: ignore[list-item]
    assert not is_admin(caller, [None, ""])


def test_a_list_for_the_method_wins_over_the_one_for_all() -> None:
    users = {"*": ["*"], "train": ["user-bob"]}
    assert may_call(ALICE, "run", users, [])
    assert not may_call(ALICE, "train", users, [])
    assert may_call(BOB, "train", users, [])


def test_admins_may_call_what_lists_nobody_and_a_star_makes_no_admin() -> None:
    assert may_call(ALICE, "run", [], ["alice@lab.example"])
    assert not is_admin(ALICE, ["*"])


def test_an_anonymous_caller_is_never_an_admin_even_with_a_listed_id() -> None:
    assert not is_admin(ANONYMOUS, ["anonymouz-ab12"])


def test_the_person_who_deployed_may_call_and_a_reconciler_of_that_name_is_nobody() -> None:
    assert may_call(BOB, "run", [], [], owner=BOB.owner())
    assert not may_call(ALICE, "run", [], [], owner=BOB.owner())
    assert not owns(Caller("lab-cluster", None), "lab-cluster")


def test_identity_is_read_from_the_context_only_as_text() -> None:
    caller = Caller.from_context({"user": {"id": "u", "email": ["alice@lab.example"], "is_anonymous": False}})
    assert caller == Caller("u", None)
    assert Caller.from_context({"user": "alice@lab.example"}).names() == frozenset()


def child_of_alice(**rights: str) -> Caller:
    """Somebody with a token that Alice made, with these rights and the one that Hypha adds to every token."""
    user = {"id": "dusty-token-1", "parent": "user-alice", "email": "alice@lab.example", "is_anonymous": False}
    return Caller.from_context({"user": {**user, "scope": {"workspaces": {**rights, "ws-user-dusty-token-1": "a"}}}})


@pytest.mark.parametrize("rights", [{"lab": "a"}, {"*": "a"}, {"ws-user-alice": "rw"}, {"lab": "r", "hers": "rw"}])
def test_a_token_that_may_write_somewhere_is_its_maker(rights: dict[str, str]) -> None:
    """Hypha's own page makes them so, in the workspace of who asks for one."""
    child = child_of_alice(**rights)
    assert child == ALICE and child.owner() == ALICE.owner()
    assert (
        owns(child, ALICE.owner())
        and is_admin(child, ["alice@lab.example"])
        and may_call(child, "run", [], ["user-alice"])
    )


@pytest.mark.parametrize("rights", [{}, {"lab": "r"}, {"*": "r"}, {"lab": "r", "hers": "r"}])
def test_a_token_made_to_read_only_has_none_of_its_makers_rights(rights: dict[str, str]) -> None:
    child = child_of_alice(**rights)
    admins = ["user-alice", "alice@lab.example"]
    assert not is_admin(child, admins) and not owns(child, ALICE.owner())
    assert not may_call(child, "run", [], admins, owner=ALICE.owner())
    assert child.owner() != ALICE.owner()
    assert str(child) == "user alice@lab.example (by a token that was made to read only)"


@pytest.mark.parametrize("scope", [None, {}, {"workspaces": None}, {"workspaces": ["a"]}])
def test_a_token_whose_rights_are_not_told_was_given_away(scope: object) -> None:
    user = {"id": "dusty-token-1", "parent": "user-alice", "scope": scope}
    assert not is_admin(Caller.from_context({"user": user}), ["user-alice"])


def test_a_token_given_away_calls_what_its_maker_is_named_for_and_acts_by_its_own_id() -> None:
    child = child_of_alice(lab="r")
    assert may_call(child, "run", ["dusty-token-1"], []) and may_call(child, "run", ["user-alice"], [])
    assert not may_call(ALICE, "run", ["dusty-token-1"], [])
    assert is_admin(child, ["dusty-token-1"]) and owns(child, child.owner())


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (["*"], ["alice"], ["alice"]),
        (["alice"], ["*"], ["alice"]),
        (["*"], ["*"], ["*"]),
        (["alice", "bob"], ["eve", "bob"], ["bob"]),
        (["alice"], [], []),
        (["*"], {"train": ["alice"]}, {"*": [], "train": ["alice"]}),
        ({"*": ["*"], "train": ["alice", "bob"]}, ["bob"], {"*": ["bob"], "train": ["bob"]}),
        ({"*": ["*"], "train": ["alice"]}, {"*": ["bob"], "run": ["*"]}, {"*": ["bob"], "train": [], "run": ["*"]}),
    ],
)
def test_both_lists_let_in_whom_each_of_them_does(one: Users, other: Users, expected: Users) -> None:
    assert both(one, other) == expected
    for caller in (Caller("alice", None), Caller("bob", None), Caller("eve", None)):
        for method in ("run", "train", "else"):
            each = may_call(caller, method, one, []) and may_call(caller, method, other, [])
            assert may_call(caller, method, both(one, other), []) == each
