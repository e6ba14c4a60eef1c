"""Ports of this machine, taken or told to be another's."""

import errno
import socket

from tl_experiments.runtime.errors import SettingError

MOST_PORT = 65535


def listen(host: str, port: int) -> socket.socket:
    """Take a port, so that nobody else can.

    Args:
        host: name or address of this machine.
        port: of it; 0 is any that is free.

    Raises:
        SettingError: it is in use, or not this machine's.
    """
    if not 0 <= port <= MOST_PORT:  # which would be taken modulo that
        raise SettingError(f"--port {port}: expected 0 to {MOST_PORT}")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was served a moment ago is free
            taken.bind(place)
            taken.listen()  # until somebody listens, several may bind the same port
        except BaseException:
            taken.close()
            raise
    except (OSError, UnicodeError) as error:  # of a name that none can be, such as a..b
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise SettingError(
                f"port {port} of {host} is in use, perhaps by this command started before; expected a free one, "
                f"such as --port {port % MOST_PORT + 1}"
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise SettingError(
            f"{host}:{port} cannot be listened on: {reason}; expected --host and --port of this machine"
        ) from error
    return taken
