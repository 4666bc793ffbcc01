"""The commands: secrets keygen, encrypt, edit, rotate. They work on files here; nothing is sent anywhere."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.ending import unusable
from reconciler.cli.place import Place
from reconciler.cli.show import Screen
from reconciler.cli.typed import typed
from reconciler.errors import ReconcilerError
from reconciler.planning.source import CLUSTER_FILE

Repo = Annotated[Path, typer.Option("--repo", help="Path of the local repository (or of a folder in one).")]
SubFolder = Annotated[str, typer.Option("--path", help="Folder of the repository that holds cluster.yaml.")]
Cluster = Annotated[str, typer.Option("--cluster", metavar="FILE", help="Name of the cluster's file in that folder.")]
Home = Annotated[
    Path | None,
    typer.Option(
        help="Folder of local state, whose secrets/age.key is the private key; default: .bioengine beside the"
        " repository. RECONCILE_AGE_IDENTITY names another key file."
    ),
]
Recipients = Annotated[
    list[str] | None, typer.Option("--recipient", metavar="age1…", help="Who may open it; may be given several times.")
]
RecipientsFile = Annotated[
    Path | None,
    typer.Option(help="File with one recipient per line; default: .age-recipients beside cluster.yaml, else our key."),
]
Target = Annotated[str, typer.Argument(metavar="APP.CLASS.NAME", help="Or APP.hypha_token, or hypha.token.")]

secrets = typer.Typer(
    name="secrets",
    no_args_is_help=True,
    help="Secrets that stand in git, encrypted with age for a key that does not.",
)


def add_to(app: typer.Typer) -> None:
    """Give `reconcile` these commands."""
    app.add_typer(secrets)


@secrets.command()
def keygen(
    more: Annotated[bool, typer.Option("--more", help="Add a key to those there are; then rotate.")] = False,
    repo: Repo = Path(),
    path: SubFolder = "",
    home: Home = None,
) -> None:
    """Make a private key, readable by you only and outside of the repository, and print the recipient it opens for.

    \b
    Examples:
      reconcile secrets keygen
      reconcile secrets keygen >> .age-recipients      several people or machines may open what is encrypted then
      reconcile secrets keygen --more && reconcile secrets rotate
    """
    from reconciler.cli import secret

    with _told(place := _place(repo, path, CLUSTER_FILE, home)) as screen:
        vault = _vault(place)
        recipient = secret.keygen(vault, more=more)
        screen.note(f"The private key is in {vault.identity}. Keep a copy where you keep such things, never in git.")
        typer.echo(recipient)


@secrets.command()
def encrypt(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Name of the variable in what is printed.")] = "NAME",
    set_: Annotated[
        str | None, typer.Option("--set", metavar="APP.CLASS.NAME", help="Write it into cluster.yaml instead.")
    ] = None,
    recipient: Recipients = None,
    recipients_file: RecipientsFile = None,
    repo: Repo = Path(),
    path: SubFolder = "",
    cluster: Cluster = CLUSTER_FILE,
    home: Home = None,
) -> None:
    """Encrypt a value, read from stdin or asked for without showing it. One trailing newline is dropped.

    \b
    Examples:
      reconcile secrets encrypt DB_PASSWORD                   prints what to put below `env: {CLASS: …}`
      reconcile secrets encrypt --set demo-app.Main.DB_PASSWORD < password.txt
      reconcile secrets encrypt --set demo-app.hypha_token --recipient age1…
    """
    from reconciler.cli import secret
    from reconciler.cli.secret_text import NAME

    with _told(place := _place(repo, path, cluster, home)) as screen:
        vault, said = _vault(place), secret.For(recipient or (), recipients_file)
        value = _asked()
        if set_ is None:
            if not NAME.fullmatch(name):
                raise typer.BadParameter("letters, digits and underscores, no digit first", param_hint="NAME")
            text = secret.encrypted(vault, value, said)
            typer.echo("\n".join([f"{name}:", "  age: |", *(f"    {line}" for line in text.splitlines())]))
        else:
            screen.note(f"{vault.file}: {secret.put(vault, set_, value, said)} is set. Next: commit it.")


@secrets.command()
def edit(
    target: Target,
    recipient: Recipients = None,
    recipients_file: RecipientsFile = None,
    repo: Repo = Path(),
    path: SubFolder = "",
    cluster: Cluster = CLUSTER_FILE,
    home: Home = None,
) -> None:
    """Open an encrypted value in $EDITOR, and encrypt it again if it was changed.

    \b
    Examples:
      reconcile secrets edit demo-app.Main.DB_PASSWORD
    """
    from reconciler.cli import secret

    with _told(place := _place(repo, path, cluster, home)) as screen:
        vault, said = _vault(place), secret.For(recipient or (), recipients_file)
        changed = secret.edit(vault, target, said, secret.with_editor)
        screen.note(f"{vault.file}: {target} is changed. Next: commit it." if changed else "Nothing was changed.")


@secrets.command()
def rotate(
    recipient: Recipients = None,
    recipients_file: RecipientsFile = None,
    repo: Repo = Path(),
    path: SubFolder = "",
    home: Home = None,
) -> None:
    """Encrypt every value in the folder's YAML files anew, for the recipients of now. Values stay, so no app restarts.

    \b
    Examples:
      reconcile secrets rotate        after .age-recipients changed, or `secrets keygen --more`
    """
    from reconciler.cli import secret

    with _told(place := _place(repo, path, CLUSTER_FILE, home)) as screen:
        vault, said = _vault(place), secret.For(recipient or (), recipients_file)
        done = secret.rotate(vault, said)
        for file, count in done:
            screen.note(f"{file}: {count} value{'s' if count != 1 else ''} encrypted anew. Next: commit it.")
        if not done:
            screen.note(f"No file in {vault.folder} has an encrypted value.")


def _place(repo: Path, path: str, cluster: str, home: Path | None) -> Place:
    return Place(str(repo), path=path, cluster=cluster, home_option=home)


def _vault(place: Place):
    from reconciler.cli.secret import Vault

    return Vault(Path(place.repository) / place.path, place.cluster, place.home, place.key_file.parent)


def _asked() -> str:
    """From a person without echo, or from a pipe. Raises SecretTrouble."""
    if sys.stdin.isatty():
        return str(typer.prompt("Value", hide_input=True, confirmation_prompt=True, err=True))
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        from reconciler.cli.secret import SecretTrouble

        raise SecretTrouble("the value is not UTF-8", hint="Encode it as text, for example with base64.") from None


@contextmanager
def _told(place: Place) -> Generator[Screen, None, None]:
    """A screen; troubles that have a name are shown by it."""
    screen = Screen()
    screen.typed = partial(typed, place=place)
    try:
        yield screen
    except (ReconcilerError, OSError) as error:
        known = error if isinstance(error, ReconcilerError) else unusable(error)
        if known is None:
            raise
        screen.error(known)
        raise typer.Exit(known.exit_code) from None
