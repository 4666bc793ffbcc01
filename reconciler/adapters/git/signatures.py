"""Whether a commit is signed by somebody we trust: `git verify-commit`, with the trust anchor outside the repository.

Law: a signature is believed only with the programs and keys named here; nothing the repository says about signing (its
own list of signers, its own `gpg.program`) is ever looked at.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reconciler.adapters.git.process import Git, GitFailed, NotReadable
from reconciler.errors import SourceUnusable
from reconciler.planning.source import Trust

_PROGRAMS = ("-c", "gpg.program=gpg", "-c", "gpg.ssh.program=ssh-keygen", "-c", "gpg.x509.program=false")
_NOWHERE = Path("/nonexistent")
_GOOD = ("G", "U")
"""Codes of git's %G?: good, and good by a key that GnuPG does not rate; the folder is what makes it trusted."""
_WHY = {
    "B": "its signature is of something else",
    "X": "its signature has expired",
    "Y": "the key of its signature has expired",
    "R": "the key of its signature was revoked",
    "E": "nobody we trust has the key of its signature",
    "N": "it is not signed",
}


def verify(git: Git, commit: str, trust: Trust) -> str:
    """Who signed it and with which key, such as `anna@lab.example (SHA256:x3Fq…)`. Raises SourceUnusable."""
    home = (trust.gnupg_home or _NOWHERE).expanduser().absolute()
    signers = (trust.allowed_signers or _NOWHERE).expanduser().absolute()
    git = replace(git, variables={**git.variables, "GNUPGHOME": str(home)})
    settings = (*_PROGRAMS, "-c", f"gpg.ssh.allowedSignersFile={signers}")
    code, who, key = _told(git, commit, settings)
    if code in _GOOD and _holds(git, commit, settings):
        return f"{who} ({key})"
    raise SourceUnusable(
        f"commit {commit[:7]} is not taken: {_WHY.get(code, _WHY['E'])}; what runs is left as it is",
        hint="sign it (git commit -S) with a key of --allowed-signers or --gnupg-home, or add the signer's key there",
    )


def _told(git: Git, commit: str, settings: tuple[str, ...]) -> tuple[str, str, str]:
    """git's code for the signature, the signer's name, and the key's fingerprint."""
    try:
        output = git(*settings, "log", "-1", "--no-show-signature", "--format=%G?%x00%GS%x00%GF", commit, "--")
    except GitFailed as error:
        raise NotReadable(f"commit {commit[:7]} cannot be read: {error}") from None
    code, who, key = output.decode(errors="replace").rstrip("\n").split("\0")
    return code, who, key


def _holds(git: Git, commit: str, settings: tuple[str, ...]) -> bool:
    try:
        git(*settings, "verify-commit", commit)
    except GitFailed:
        return False
    return True
