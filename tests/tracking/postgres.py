"""A PostgreSQL of one's own, from the programs that Debian's `postgresql` has: made in a folder, and gone with it."""

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

USERS = ("postgres", "nobody")  # it refuses to run as root
DATABASE = "mlflow"


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parents[1].name))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Postgres:
    """A server that listens on 127.0.0.1 alone, and trusts who can reach it there."""

    def __init__(self, folder: Path, *, port: int) -> None:
        """Make an empty database and start.

        Args:
            folder: which the server's user can get at.
            port: that is free.
        """
        self._folder = folder
        self.uri = f"postgresql+psycopg2://{DATABASE}@127.0.0.1:{port}/{DATABASE}"
        self._options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", DATABASE, "--no-sync")
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", DATABASE, DATABASE)

    def start(self) -> None:
        self._control("start", "-o", self._options, "-l", str(self._folder / "log"))

    def crash(self) -> None:
        """End without a checkpoint, as a power failure would: the next start recovers from the log."""
        self._control("stop", "-m", "immediate")

    def _control(self, verb: str, *options: str) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", *options, verb)

    def _run(self, program: str, *arguments: str) -> None:
        folder = programs()
        assert folder is not None
        user = next((name for name in USERS if _is_user(name)), USERS[0])
        before = ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []
        command = [*before, str(folder / program), *arguments]
        # What it starts would keep a pipe open for ever.
        with (self._folder / "commands.log").open("ab") as log:
            done = subprocess.run(command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        assert done.returncode == 0, (self._folder / "commands.log").read_text()


@contextlib.contextmanager
def postgres(*, port: int) -> Iterator[Postgres]:
    """Run a PostgreSQL in a folder of its own; pytest's folders are closed to other users."""
    with TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            user = pwd.getpwnam(next(name for name in USERS if _is_user(name)))
            os.chown(folder, user.pw_uid, user.pw_gid)
        server = Postgres(folder, port=port)
        try:
            yield server
        finally:
            server.crash()


def _is_user(name: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False
