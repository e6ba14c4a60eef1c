"""Where runs are tracked: one absolute address, whatever the working directory is later, and never with a password."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.links import SQLITE, is_server

DEFAULT_URI = "sqlite:///outputs/mlflow.db"
DATABASES = ("postgresql", "mysql", "mssql")
SCHEMES = ("http://", "https://", *DATABASES, "databricks")
VARIABLE = "MLFLOW_TRACKING_URI"
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
HIDDEN = "***"

DATABASE_CREDENTIALS = ("PGPASSWORD", "MYSQL_PWD")  # sent to whatever server an address names

_USER_INFO = re.compile(r"(?<=://)[^/?#]+(?=@)")  # a user and a password, or a token alone
_QUERY = re.compile(r"([?&;][\w.%+-]*(?:pass|pwd|token|secret|odbc_connect)[\w.%+-]*=)([^&#]+)", re.IGNORECASE)
_IN_ODBC = re.compile(r"(?:pwd|password)=([^;&]+)", re.IGNORECASE)
SHORTEST = 4  # letters of a password that is looked for by itself in a text


def absolute_uri(uri: str | None) -> str:
    """Return the address of the store: `uri`, else $MLFLOW_TRACKING_URI, else the default; sqlite paths made absolute.

    Raises:
        SettingError: for an address that MLflow cannot use or no longer takes, such as a folder, and for one that was
            typed with a password.
    """
    if uri and holds_secret(uri):
        user = f", or only the password, in {CREDENTIALS[0]} and {CREDENTIALS[1]}" if is_server(uri) else ""
        raise SettingError(
            f"tracking.uri={shown(uri)}: an address with a password would be written into the run's files; "
            f"put it in the environment variable {VARIABLE}{user}"
        )
    return usable_uri(uri or os.environ.get(VARIABLE) or DEFAULT_URI, source="tracking.uri" if uri else VARIABLE)


def usable_uri(uri: str, *, source: str) -> str:
    """Return an address that MLflow can use, sqlite paths made absolute.

    Args:
        uri: of the store.
        source: who says so.

    Raises:
        SettingError: MLflow cannot use it.
    """
    if uri.startswith(SQLITE) and len(uri) > len(SQLITE):
        return SQLITE + str(Path(uri.removeprefix(SQLITE)).absolute())
    if uri.startswith(SCHEMES):
        return uri
    raise SettingError(
        f"{source}={shown(uri)}: expected sqlite:///FILE.db or the http(s) address of a tracking server; "
        "MLflow no longer keeps runs in a plain folder"
    )


def lasting_uri(uri: str | None) -> str | None:
    """Return `absolute_uri(uri)` as it may be kept in a file; None where the environment must say it, as a secret."""
    found = absolute_uri(uri)
    return None if holds_secret(found) else found


def holds_secret(uri: str) -> bool:
    return bool(_USER_INFO.search(uri) or _QUERY.search(uri))


def require_own_server(kept: str, *, source: object, expected: str) -> None:
    """See that a server which only a file names is not sent the user's credentials.

    Args:
        kept: its address, as the file has it.
        source: the file, or its folder.
        expected: what the user may type instead, if the server may have them; `{}` stands for the address.

    Raises:
        SettingError: there are credentials, and the environment names another server.
    """
    if kept.rstrip("/") != os.environ.get(VARIABLE, "").rstrip("/") and _has_credentials(kept):
        raise SettingError(
            f"{source}: its server, {shown(kept)}, would be sent your credentials, those of MLFLOW_TRACKING_... or of "
            f"MLflow's credentials file; expected {expected.format(shown(kept))}, if it may have them"
        )


def _has_credentials(uri: str) -> bool:
    """Whether what this process would send to a server holds more than the address does."""
    if not is_server(uri):
        return not uri.startswith(SQLITE) and any(os.environ.get(name) for name in DATABASE_CREDENTIALS)
    from mlflow.utils.credentials import get_default_host_creds  # noqa: PLC0415 - MLflow is slow to import

    found = get_default_host_creds(uri)
    return any((found.username, found.password, found.token, found.aws_sigv4, found.auth, found.client_cert_path))


def shown(uri: str) -> str:
    """Return an address as it may be told and kept: `scheme://***@host` where it holds a password.

    >>> shown("postgresql://me:hush@host/runs")
    'postgresql://***@host/runs'
    """
    return _QUERY.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(HIDDEN, uri))


def without_user(uri: str) -> str:
    """Return an address that a browser may be given: it asks for user and password by itself."""
    return re.sub(r"(?<=://)[^/?#]*@", "", uri)


def redacted(text: str, uri: str) -> str:
    """Return what a library says about the store at `uri`, without the secrets of the address and the environment."""
    secrets = [os.environ.get(name, "") for name in CREDENTIALS[1:]]
    for found in _USER_INFO.findall(uri):
        is_whole = ":" in found or is_server(uri)  # a database's user alone is part of many words
        secrets += [found if is_whole else "", found.partition(":")[2]]
    values = [value for _, value in _QUERY.findall(uri)]
    secrets += values + [inner for value in values for inner in _IN_ODBC.findall(unquote(value))]
    for secret in secrets:
        for form in (secret, unquote(secret)):
            text = text.replace(form, HIDDEN) if len(form) >= SHORTEST else text
    return shown(text)
