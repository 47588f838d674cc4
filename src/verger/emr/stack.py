"""Make the CloudFormation template of the infrastructure, and the command that creates it."""

from __future__ import annotations

import re
import shlex
from importlib import resources
from pathlib import Path

from verger.emr.region import check_region
from verger.errors import ConfigError, OutputError, OutputExistsError


def template() -> str:
    """Return the template: bucket, roles, application, alarm."""
    return (resources.files("verger.emr") / "stack.yaml").read_text("utf-8")


def write_stack(path: Path, *, overwrite: bool = False) -> None:
    """Write the template into a file.

    Raises
    ------
    OutputExistsError
        If there is another file of that name, which may have been edited.
    OutputError
        If it cannot be written.
    """
    try:
        if path.exists() and not overwrite and path.read_text("utf-8", "replace") != template():
            raise OutputExistsError(f"{path}: is there and differs; --overwrite replaces it")
        path.write_text(template(), "utf-8")
    except OSError as err:
        if isinstance(err, OutputExistsError):
            raise
        raise OutputError(f"{path}: cannot be written: {err.strerror}") from err


def deploy_command(
    path: Path, *, name: str, region: str, alarm_email: str, allow_region: bool = False
) -> str:
    """Return the line that creates the stack, or brings one that is there up to date.

    Parameters
    ----------
    path : Path
        The template.
    name : str
        Of the stack.
    region : str
    alarm_email : str
        Who is told of the bill.
    allow_region : bool
        Let the region lie outside the European Union.

    Raises
    ------
    ConfigError
        If the region is refused, or the name or the address is none.
    """
    check_region(region, allow=allow_region)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", name):
        raise ConfigError(
            f"name={name!r} must begin with a letter, and have letters, digits and dashes, 64 at "
            "most"
        )
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", alarm_email):
        raise ConfigError(f"alarm_email={alarm_email!r} is no address")
    parameters = [f"AlarmEmail={alarm_email}", *(["AllowRegion=yes"] if allow_region else [])]
    return shlex.join(
        [
            "aws",
            "cloudformation",
            "deploy",
            "--region",
            region,
            "--stack-name",
            name,
            "--template-file",
            str(path),
            "--capabilities",
            "CAPABILITY_IAM",
            "--parameter-overrides",
            *parameters,
        ]
    )
