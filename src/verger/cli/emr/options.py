"""Options that the commands of ``verger emr`` share, and the values that they resolve to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from verger.cli.options import FEATURES, MODEL, PHOTOS, REDUCE

if TYPE_CHECKING:
    from verger.config import Config
    from verger.emr.aws import Cloud
    from verger.emr.jobs import Setup
    from verger.emr.price import Limit

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_Group = TypeVar("_Group")

#: Options of the configuration that a run on EMR takes.
RUN_OPTIONS = (
    *PHOTOS,
    *(name for name in MODEL if name != "weights"),  # the package has them
    *FEATURES,
    *REDUCE,
    "lang",
    "partitions",
    "overwrite",
    "conf",
    "app_name",
)


#: Options of ``verger emr`` that the table ``emr`` of a configuration may have.
SAVED = (
    *("region", "allow-region", "on", "package", "stack", "role", "application", "logs"),
    *("service-role", "instance-profile", "instance-type", "subnet", "tag"),
    *("image", "security-group", "kms-key"),
    *("max-cost", "max-minutes", "max-executors", "speed", "rates"),
    *("executor-size", "disk", "flex"),
)


class SavedCommand(click.Command):
    """A command whose options have their defaults in the table ``emr`` of ``--config FILE``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the defaults from the file, if there is one; flags win."""
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        if file := typed.get("config_file"):
            saved = read_saved(Path(file))
            ctx.default_map = {
                str(option.name): saved[flag]
                for option in self.params
                for flag in (name.removeprefix("--") for name in option.opts)
                if flag in saved
            }
        return super().parse_args(ctx, args)


def read_saved(path: Path) -> dict[str, Any]:
    """Return the table ``emr`` of a configuration by the names of the options.

    Raises
    ------
    ConfigError
        If it is no table, or has a key that is no option.
    """
    from verger.config.toml import read_toml
    from verger.errors import ConfigError

    table = read_toml(path, "--config").get("emr", {})
    if not isinstance(table, dict):
        raise ConfigError(f"--config {path}: emr={table!r} must be a table: [emr]")
    saved = {key.replace("_", "-"): value for key, value in table.items()}
    for key in saved:
        if key not in SAVED:
            raise ConfigError(
                f"--config {path}: unknown key {key!r} in [emr]; known keys: {', '.join(SAVED)}"
            )
    return saved


@dataclass(frozen=True)
class PlaceOptions:
    """Where a run goes, as far as the options say."""

    package: str
    stack: str | None
    role: str | None
    application: str | None
    logs: str | None

    def for_serverless(self, out: str) -> dict[str, Any]:
        """Return the arguments of :func:`verger.emr.submit.find_place`."""
        return asdict(self) | {"out": out, "setup": given(SetupOptions).setup}

    def for_cluster(self, out: str) -> dict[str, Any]:
        """Return the arguments of :func:`verger.emr.ec2.find_cluster_place`."""
        return {"package": self.package, "stack": self.stack, "logs": self.logs, "out": out}


@dataclass(frozen=True)
class SetupOptions:
    """What an application of EMR Serverless is made with, as far as the options say."""

    image: str | None
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    kms_key: str | None

    @property
    def setup(self) -> Setup:
        """The same, for requests."""
        from verger.emr.jobs import Setup

        if self.security_groups and not self.subnets:
            raise click.UsageError("--security-group: needs --subnet")
        # Sorted: the order says nothing, and would make another application.
        groups = {"security_groups": tuple(sorted(self.security_groups))}
        return Setup(**asdict(self) | groups | {"subnets": tuple(sorted(self.subnets))})


@dataclass(frozen=True)
class HostOptions:
    """The machines of a cluster, as far as the options say."""

    service_role: str | None
    instance_profile: str | None
    instance_types: tuple[str, ...]
    subnets: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the arguments of :func:`verger.emr.ec2.find_hosts`, without the stack's name."""
        if len(self.subnets) > 1:
            raise click.UsageError("--subnet: one with --on ec2")
        subnet = self.subnets[0] if self.subnets else None
        return {key: value for key, value in asdict(self).items() if key != "subnets"} | {
            "subnet": subnet
        }


@dataclass(frozen=True)
class BudgetOptions:
    """What a run may cost and take."""

    max_cost: float | None
    max_minutes: int
    max_executors: int
    speed: float | None
    rates: Path | None
    executor_size: str | None
    disk: int | None

    @property
    def limit(self) -> Limit:
        """The limit of executors, of what size, and of minutes."""
        from verger.emr.price import EXECUTOR, Limit

        executor = EXECUTOR
        if self.executor_size is not None:
            vcpu, _, memory_gb = self.executor_size.partition("x")
            if not vcpu.isdecimal() or not memory_gb.isdecimal():
                raise click.BadParameter(
                    f"{self.executor_size}: must be VCPUxGB, such as 4x24",
                    param_hint="--executor-size",
                )
            executor = replace(executor, vcpu=int(vcpu), memory_gb=int(memory_gb))
        if self.disk is not None:
            executor = replace(executor, disk_gb=self.disk)
        return Limit(self.max_executors, self.max_minutes, executor)

    def speed_of(self, config: Config) -> float:
        """Return photos a second and virtual core, assumed where the options do not say it."""
        from verger.emr.price import ASSUMED_SPEED
        from verger.features.preprocess import n_views

        return ASSUMED_SPEED / n_views(config.views) if self.speed is None else self.speed


def given(group: type[_Group]) -> _Group:
    """Return a group of options with the values that the current command was given."""
    values = click.get_current_context().params
    return group(**{field.name: values[field.name] for field in fields(group)})  # type: ignore[arg-type]


def connect_as_given() -> Cloud:
    """Connect to AWS by ``--region`` and ``--allow-region``."""
    from verger.emr.aws import connect

    values = click.get_current_context().params
    return connect(values["region"], allow_region=values["allow_region"])


def refuse_elsewhere(on: str, place: PlaceOptions, hosts: HostOptions) -> None:
    """Refuse options of EMR Serverless for a cluster, and those of a cluster for Serverless."""
    if on == "ec2":
        setup = given(SetupOptions)
        refuse(on, role=place.role, application=place.application, image=setup.image)
        refuse(on, security_group=setup.security_groups, kms_key=setup.kms_key)
    else:
        refuse(on, **replace(hosts, subnets=()).as_dict())


def refuse(on: str, **values: Any) -> None:
    """Refuse options that mean nothing where the run goes."""
    names = [
        name.replace("_types", "_type") for name, value in values.items() if value not in (None, ())
    ]
    named = [f"--{name.replace('_', '-')}" for name in names]
    if named:
        raise click.UsageError(f"{', '.join(named)}: not with --on {on}")


def check_application(on: str, application: str | None) -> str:
    """Return the application of a run; a run on EC2 has none."""
    if on == "ec2":
        refuse(on, application=application)
    elif application is None:
        raise click.UsageError("Missing option '--application'; or --on ec2")
    return application or ""


def parse_tags(texts: tuple[str, ...]) -> dict[str, str]:
    """Return tags of the form ``KEY=VALUE`` by their keys."""
    pairs = [text.partition("=") for text in texts]
    for key, equals, value in pairs:
        if not equals or not 1 <= len(key) <= 128 or len(value) > 256 or key.startswith("aws:"):
            raise click.BadParameter(
                f"{key}{equals}{value}: must be KEY=VALUE, of up to 128 and 256 characters, and "
                "not begin with aws:",
                param_hint="--tag",
            )
    return {key: value for key, _, value in pairs}


def _add(*options: Any) -> _Decorator:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


region_options = _add(
    click.option("--region", help="AWS region, such as eu-west-3. Default: AWS_REGION, a profile."),
    click.option("--allow-region", is_flag=True, help="Accept a region outside the EU."),
)
rates_option = click.option(
    "--rates",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file of rates instead of Verger's own.",
)
architecture_option = click.option(
    "--architecture",
    default="X86_64",
    show_default=True,
    type=click.Choice(["X86_64", "ARM64"]),
    help="Processor of the workers; ARM64 is cheaper.",
)
_executors = click.option(
    "--max-executors",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Most executors, of 4 virtual cores each; 3 and the driver fit a new account's quota.",
)
_speed = click.option(
    "--speed", type=float, help="Photos a second and virtual core; verger emr estimate times it."
)
speed_options = _add(_executors, _speed)
place_options = _add(
    click.option(
        "--package",
        required=True,
        metavar="s3://BUCKET/env/NAME",
        help="What verger emr package has made.",
    ),
    click.option(
        "--stack",
        metavar="NAME",
        help="Stack of verger emr init: its bucket, its role, its application.",
    ),
    click.option("--role", metavar="ARN", help="Role of the run, if there is no stack."),
    click.option(
        "--application",
        metavar="ID",
        help="Default: the stack's, else Verger's own, made where there is none.",
    ),
    click.option("--logs", metavar="s3://BUCKET/PREFIX", help="Default: logs/ of the bucket."),
)
saved_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file whose table [emr] has options; flags win.",
)
run_argument = click.argument("run_id", metavar="RUN")
application_option = click.option(
    "--application", metavar="ID", help="Where the run is; submit has said it."
)
on_option = click.option(
    "--on",
    type=click.Choice(["serverless", "ec2"]),
    default="serverless",
    show_default=True,
    help="EMR Serverless, or a cluster of its own.",
)
types_option = click.option(
    "--instance-type",
    "instance_types",
    multiple=True,
    metavar="TYPE",
    help="On EC2: a type of nodes, such as m5.xlarge; once for each.",
)
host_options = _add(
    click.option(
        "--service-role", metavar="NAME", help="On EC2: the role of EMR. Default: the stack's."
    ),
    click.option(
        "--instance-profile",
        metavar="NAME",
        help="On EC2: profile of the machines. Default: the stack's.",
    ),
    types_option,
)
setup_options = _add(
    click.option(
        "--image",
        metavar="URI",
        help="Image in ECR, built by the Dockerfile of verger emr package: no archive travels.",
    ),
    click.option(
        "--subnet",
        "subnets",
        multiple=True,
        metavar="ID",
        help="Where the workers are; once for each. On EC2: one.",
    ),
    click.option(
        "--security-group",
        "security_groups",
        multiple=True,
        metavar="ID",
        help="Of the workers in that network; once for each.",
    ),
    click.option(
        "--kms-key", metavar="ARN", help="Key of disks and logs, and of what the run reads."
    ),
)
budget_options = _add(
    click.option(
        "--max-cost",
        type=float,
        help="Most that the run may cost, in the rates' currency; "
        "becomes a limit of executors and minutes.",
    ),
    click.option("--max-minutes", default=720, show_default=True, help="Most that it may take."),
    speed_options,
    rates_option,
    click.option(
        "--executor-size",
        metavar="VCPUxGB",
        help="Size of an executor on EMR Serverless, such as 4x24. Default: 4x12.",
    ),
    click.option(
        "--disk", type=int, metavar="GB", help="Disk of an executor there; 20 come with it."
    ),
)
