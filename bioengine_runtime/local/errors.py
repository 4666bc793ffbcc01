"""What can go wrong with the embedded default, each with the way out."""

from datetime import datetime
from pathlib import Path


class LocalError(Exception):
    """Something of the embedded default does not start or fit; `hint` is the way out, `log_file` the details."""

    def __init__(self, message: str, hint: str, log_file: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log_file = log_file

    def __str__(self) -> str:
        lines = [self.message, self.hint]
        if self.log_file is not None:
            lines.append(f"log file: {self.log_file}")
        return "\n".join(line for line in lines if line)


class HomeBusy(LocalError):
    """Another process runs on this home; the command line exits 75 (EX_TEMPFAIL)."""

    def __init__(self, home: Path, *, pid: int | None, since: datetime | None, host: str) -> None:
        who = "another process" if pid is None else f"process {pid}"
        started = f" since {since:%Y-%m-%d %H:%M:%S}" if since else ""
        kill = "" if pid is None else f", or kill {pid}"
        super().__init__(
            f"{home} is in use by {who} on {host}{started}",
            f"stop it (Ctrl-C in its terminal{kill}), or choose another folder with --home",
        )
        self.home = home
        self.pid = pid
        self.since = since
        self.host = host
