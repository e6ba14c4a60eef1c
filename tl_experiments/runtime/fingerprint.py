"""What a run is: one digest of what determines the result, and the facts of the code. Nothing heavy is imported."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


def fingerprint(fields: Mapping[str, Any]) -> str:
    """Return the sha256 over fields of plain values, in hexadecimal, whatever their order."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions that the bits of a result may depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def git_commit() -> str | None:
    """Return the commit of the working directory, with `-dirty` where files were changed; None outside a repository."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        answer = subprocess.run(command, cwd=Path.cwd(), capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
