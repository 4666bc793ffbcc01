"""Where values are read from, and that they stay out of sight (SS-02, SS-04, SS-06; all of SS in _canary)."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path

import pytest

from bioengine_runtime.contract.base import SecretFromEnv, SecretFromFile
from reconciler.ports import SecretUnavailable
from reconciler.secrets import LocalSecrets, Mask, masking_filter

VALUE = "s3cr3t-value"
TABLE = {"*": {"PASS": SecretFromEnv(env="CI_PASS")}}


def some_secrets(folder: Path, *, make_key: bool = True, **environ: str) -> LocalSecrets:
    return LocalSecrets(folder / "fingerprint.key", make_key=make_key, environ=environ)


def test_a_file_loses_one_trailing_newline(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n\n")
    assert some_secrets(tmp_path).read(SecretFromFile(file=str(file))) == "abc\n"


def test_all_that_cannot_be_read_is_named_at_once_and_no_value_is(tmp_path: Path) -> None:
    table = {"Main": {"A": SecretFromEnv(env="NOPE"), "B": SecretFromFile(file="/nowhere")}, **TABLE}
    with pytest.raises(SecretUnavailable) as error:
        some_secrets(tmp_path, CI_PASS=VALUE).resolve("app", table)
    assert "NOPE" in str(error.value) and "/nowhere" in str(error.value) and VALUE not in str(error.value)


def test_ss_04_fingerprints_need_the_key_of_this_installation(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    one = some_secrets(here, CI_PASS=VALUE).fingerprints("app", TABLE)["*/PASS"]
    assert one == some_secrets(here, CI_PASS=VALUE).fingerprints("other-app", TABLE)["*/PASS"]
    assert one != some_secrets(there, CI_PASS=VALUE).fingerprints("app", TABLE)["*/PASS"]
    assert one and one not in hashlib.sha256(VALUE.encode()).hexdigest()
    assert (here / "fingerprint.key").stat().st_mode & 0o777 == 0o600


def test_without_the_key_a_plan_does_not_know_rather_than_see_a_change(tmp_path: Path) -> None:
    reading = some_secrets(tmp_path / "new", make_key=False, CI_PASS=VALUE)
    assert reading.fingerprints("app", TABLE) == {"*/PASS": None}
    assert not (tmp_path / "new").exists()


def test_ss_02_logs_are_masked_with_their_arguments_and_tracebacks() -> None:
    mask, written = Mask(), io.StringIO()
    mask.add(VALUE)
    handler = logging.StreamHandler(written)
    handler.addFilter(masking_filter(mask))
    log = logging.Logger("alone")
    log.addHandler(handler)
    try:
        raise RuntimeError(f"upstream says {VALUE}")
    except RuntimeError:
        log.exception("failed with %s", VALUE)
    assert VALUE not in written.getvalue() and written.getvalue().count("(secret)") == 2


def test_ss_06_short_values_do_not_blot_out_words() -> None:
    mask = Mask()
    mask.add("on")
    assert mask("on and on") == "on and on"
