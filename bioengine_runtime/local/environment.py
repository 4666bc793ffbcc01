"""What a child process may know: a short list of settings of the machine, and never a token of ours or the user's."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

# Named one by one, because a replica runs other people's code and must not find the user's cloud or Hypha token.
PASSED = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
    )
)
# Locale, accelerators, threads; and where packages come from, which building an app's environment needs.
PASSED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "ROCR_", "HIP_", "OMP_", "MKL_", "OPENBLAS_", "PIP_", "UV_", "XDG_")
# To fetch packages needs no right to publish them.
NOT_PASSED_PREFIXES = ("UV_PUBLISH_",)


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: what the machine needs, and `extra`."""
    passed = {name: value for name, value in os.environ.items() if _is_passed(name)}
    own_programs = str(Path(sys.executable).parent)
    return {
        **passed,
        "PATH": os.pathsep.join([own_programs, passed.get("PATH", os.defpath)]),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


def _is_passed(name: str) -> bool:
    return name in PASSED or (name.startswith(PASSED_PREFIXES) and not name.startswith(NOT_PASSED_PREFIXES))
