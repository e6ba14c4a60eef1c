"""The compose file of a team's server: it parses, MLflow knows what it is told, and no password has a default.

No container is run: there is neither a Docker daemon nor a registry where tests run.
"""

import configparser
import re
from pathlib import Path
from typing import Any

import mlflow
import mlflow.environment_variables
import pytest
import yaml
from click import Command
from mlflow.cli import cli

DOCS = Path(__file__).parents[2] / "docs"
COMPOSE = DOCS / "team" / "compose.yaml"
ONCE = {"bucket"}  # services that do their work and end
NAME = re.compile(r"^([A-Z0-9_]+)=(.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def server() -> Command:
    return cli.commands["server"]


def options_of(command: Command) -> dict[str, str | None]:
    """Return each option of a command and the variable of the environment that may stand for it."""
    return {name: getattr(option, "envvar", None) for option in command.params for name in option.opts}


def test_mlflow_knows_every_option_it_is_given(compose: dict[str, Any], server: Command) -> None:
    program, verb, *options = compose["services"]["mlflow"]["command"]
    assert (program, verb) == ("mlflow", "server")
    given = {option.partition("=")[0] for option in options}
    assert given <= options_of(server).keys()
    assert {"--artifacts-destination", "--serve-artifacts", "--app-name", "--allowed-hosts"} <= given
    assert "MLFLOW_BACKEND_STORE_URI" in options_of(server).values(), "the address of the database, password and all"


def test_mlflow_and_its_accounts_read_what_the_environment_says(compose: dict[str, Any]) -> None:
    said = {name for name in compose["services"]["mlflow"]["environment"] if name.startswith("MLFLOW_")}
    of_options = {"MLFLOW_BACKEND_STORE_URI"}
    assert not [name for name in said - of_options if not hasattr(mlflow.environment_variables, name)]
    parser, known = configparser.ConfigParser(), configparser.ConfigParser()
    parser.read_string(compose["configs"]["users"]["content"].replace("${", "$${"))
    known_file = Path(mlflow.__file__).parent / "server" / "auth" / "basic_auth.ini"
    known.read_string(known_file.read_text().replace("# auth_cache_ttl_seconds", "auth_cache_ttl_seconds"))
    assert parser["mlflow"].keys() <= known["mlflow"].keys()
    [target] = [config["target"] for config in compose["services"]["mlflow"]["configs"]]
    assert target == compose["services"]["mlflow"]["environment"]["MLFLOW_AUTH_CONFIG_PATH"]


def test_secrets_come_from_env_alone_and_have_no_default(compose: dict[str, Any]) -> None:
    used = re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE.read_text())
    example = dict(NAME.findall((COMPOSE.parent / ".env.example").read_text()))
    assert {name for name, _ in used} == example.keys()
    assert {rest for _, rest in used} == {":?set it in .env"}, "compose refuses to start without it"
    assert set(example.values()) == {""}
    assert not (COMPOSE.parent / ".env").exists()
    address = compose["services"]["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    assert ":${POSTGRES_PASSWORD" in address


def test_versions_are_pinned_state_is_kept_and_nothing_but_mlflow_is_published(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+[\w.-]*$", service["image"]), f"{name}: {service['image']}"
        assert name in ONCE or service["healthcheck"]["test"][0] == "CMD", name
    assert services["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]
    assert not [name for name, service in services.items() if "ports" in service and name != "mlflow"]
    mounted = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert mounted == compose["volumes"].keys()
    assert {name for service in services.values() for name in service.get("depends_on", ())} <= services.keys()


def test_the_page_names_what_the_file_has_and_what_mlflow_knows(compose: dict[str, Any], server: Command) -> None:
    page = (DOCS / "team.md").read_text()
    images = {service["image"] for name, service in compose["services"].items()}
    assert images == set(re.findall(r"`([\w./-]+:v?\d[\w.-]*)`", page))
    for name in set(re.findall(r"MLFLOW_[A-Z_]+", page)):
        assert hasattr(mlflow.environment_variables, name) or name in options_of(server).values(), name
    known = options_of(server).keys() | {"--tracking-uri", "--rm"}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", page)) <= known
    assert "upgrade" in cli.commands["db"].commands
