"""Build the requests to EMR Serverless as plain data: an application, a run, its rights.

Nothing here talks to AWS. Equal requests for a run have equal bytes, and so the same token, by
which AWS recognises a request that is sent twice.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from verger.emr.aws import split_address
from verger.emr.price import DRIVER, FREE_DISK_GB, Limit, Worker
from verger.engine.environment import PYTHON, UNPACKED
from verger.errors import ConfigError

#: The longest that AWS lets a batch run take: a week.
MAX_MINUTES = 10_080
#: Minutes without a run after which an application of ours stops.
IDLE_MINUTES = 5
#: Longest text of a policy that comes with a run.
MAX_POLICY = 2048
#: GB of the driver's JVM; and one in how many of an executor's are its JVM's. The rest is for the
#: Python processes, which Spark counts as overhead.
DRIVER_JVM_GB = 3
EXECUTOR_JVM_SHARE = 3
#: Where the driver over there keeps what Verger caches.
DRIVER_HOME = "/tmp/verger"  # noqa: S108 - the driver's own machine

#: What a run does with a key: it reads and writes objects, and EMR its disks, in its name.
KEY_RIGHTS = ["kms:Decrypt", "kms:GenerateDataKey"]
#: The interpreter of an image that was built by ``dockerfile.in``.
IMAGE_PYTHON = "/opt/verger/bin/python"

#: Numbers of executors. A run begins with the largest of the first three, and EMR Serverless
#: refuses it if that is more than the last; ``spark.executor.instances`` is 3 there unless it is
#: set (EMR Serverless User Guide, "Spark jobs").
COUNTS = (
    "spark.executor.instances",
    "spark.dynamicAllocation.initialExecutors",
    "spark.dynamicAllocation.minExecutors",
    "spark.dynamicAllocation.maxExecutors",
)
#: What neither a shell nor a split at blanks changes.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./#-]+")

#: No run in these states goes on.
ENDED = ("SUCCESS", "FAILED", "CANCELLED")

#: Release to the Pythons that its Spark knows: 3.5 up to 3.11, 4.0 up to 3.13.
RELEASES = {
    r"emr-7\.\d+\.\d+": ("3.11",),
    r"emr-spark-8\.\d+(\.\d+|-preview)": ("3.11", "3.12", "3.13"),
}
ARCHITECTURES = ("X86_64", "ARM64")


def pythons_of(release: str) -> tuple[str, ...]:
    """Return the versions of Python that a release can be given.

    Raises
    ------
    ConfigError
        If it is no release that Verger runs on.
    """
    for pattern, pythons in RELEASES.items():
        if re.fullmatch(pattern, release):
            return pythons
    raise ConfigError(
        f"release={release!r} must be emr-7.x.y, such as emr-7.10.0, or emr-spark-8.x.y"
    )


@dataclass(frozen=True)
class Setup:
    """What a run's application is made with, beside a release and a size.

    Attributes
    ----------
    image : str or None
        Address in ECR of an image that has Verger in it: then no archive travels.
    subnets, security_groups : tuple of str
        Of a network of one's own.
    kms_key : str or None
        ARN of the key of disks and logs, and of whatever the run reads and writes.
    """

    image: str | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    kms_key: str | None = None

    def request(self) -> dict[str, Any]:
        """Return the parts of ``CreateApplication`` that say so."""
        request: dict[str, Any] = {}
        if self.image:
            request["imageConfiguration"] = {"imageUri": self.image}
        if self.subnets or self.security_groups:
            groups = list(self.security_groups)
            request["networkConfiguration"] = {
                "subnetIds": list(self.subnets),
                **({"securityGroupIds": groups} if groups else {}),
            }
        return request | self.disks()

    def disks(self) -> dict[str, Any]:
        """Return the key of the disks, as an application and a run take it."""
        return (
            {"diskEncryptionConfiguration": {"encryptionKeyArn": self.kms_key}}
            if self.kms_key
            else {}
        )

    def monitoring(self, logs: str) -> dict[str, Any]:
        """Return where logs go, and the key of those in the bucket."""
        key = {"encryptionKeyArn": self.kms_key} if self.kms_key else {}
        return {"s3MonitoringConfiguration": {"logUri": f"{logs}/", **key}}


#: An application with nothing of one's own.
PLAIN = Setup()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, and all that it needs.

    Attributes
    ----------
    entry : str
        Name of the file in the package that is started.
    arguments : tuple of str
        Its arguments; of the command line, ``run SRC OUT --option ...``.
    reads : tuple of str
        Addresses below which it may read: the photos.
    writes : tuple of str
        Addresses below which it may write: OUT.
    package : str
        Address of the package, ``s3://bucket/env/name``.
    archive : str
        Name of the environment's archive in the package.
    application, role : str
        Identifier of the application, address (ARN) of the role.
    logs : str
        Address below which logs go.
    region : str
    limit : Limit
        Executors and minutes that it may not pass.
    conf : dict of str to str
        Settings of Spark, on top of ours.
    tags : dict of str to str
        Of the run, for Cost Explorer.
    flex : bool
        Let executors run on spare capacity, which AWS may take back.
    setup : Setup
        What its application is made with.
    """

    entry: str = "main.py"
    arguments: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    package: str
    archive: str
    application: str
    role: str
    logs: str
    region: str
    limit: Limit
    conf: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    flex: bool = False
    setup: Setup = PLAIN

    @property
    def python(self) -> str:
        """The interpreter over there: of the unpacked archive, or of the image."""
        return IMAGE_PYTHON if self.setup.image else PYTHON

    @property
    def partition(self) -> str:
        """The part of AWS that the role is in, ``aws`` in all of Europe."""
        return self.role.split(":")[1]


def application_request(
    name: str, release: str, architecture: str, limit: Limit, logs: str, setup: Setup = PLAIN
) -> dict[str, Any]:
    """Return the request ``CreateApplication``: with a maximum capacity, and stopped when idle.

    botocore adds a token, a new one each time: with one that AWS has seen, it would return the
    application of that time, deleted or not.
    """
    return {
        "name": name,
        "releaseLabel": release,
        "type": "SPARK",
        "architecture": architecture,
        "maximumCapacity": capacity(limit),
        "autoStartConfiguration": {"enabled": True},
        "autoStopConfiguration": {"enabled": True, "idleTimeoutMinutes": IDLE_MINUTES},
        "monitoringConfiguration": setup.monitoring(logs),
        "tags": {"made-by": "verger"},
        **setup.request(),
    }


def capacity(limit: Limit) -> dict[str, str]:
    """Return the room for a driver and its executors."""
    workers: list[tuple[Worker, int]] = [(DRIVER, 1), (limit.executor, limit.executors)]
    totals = {
        "cpu": (sum(n * w.vcpu for w, n in workers), "vCPU"),
        "memory": (sum(n * w.memory_gb for w, n in workers), "GB"),
        "disk": (sum(n * w.disk_gb for w, n in workers), "GB"),
    }
    return {name: f"{number} {unit}" for name, (number, unit) in totals.items()}


def job_request(job: Job, earlier: int = 0) -> dict[str, Any]:
    """Return the request ``StartJobRun``.

    Parameters
    ----------
    job : Job
    earlier : int
        Runs of the same job that have ended. They are part of the token: one that failed can be
        started again, and one that was sent twice is one run.
    """
    request: dict[str, Any] = {
        "applicationId": job.application,
        "executionRoleArn": job.role,
        "executionIamPolicy": {"policy": session_policy(job)},
        "executionTimeoutMinutes": job.limit.minutes,
        "jobDriver": {
            "sparkSubmit": {
                "entryPoint": f"{job.package}/{job.entry}",
                "entryPointArguments": list(job.arguments),
                "sparkSubmitParameters": spark_parameters(job),
            }
        },
        "configurationOverrides": {
            "monitoringConfiguration": job.setup.monitoring(job.logs),
            **job.setup.disks(),
            **spark_defaults(job),
        },
    }
    if job.flex:
        request["flexExecution"] = {"enabled": True}
    if job.tags:  # which ask for a right more
        request["tags"] = dict(job.tags)
    name = job_name(job)
    return request | {"name": name, "clientToken": digest([request, earlier])[:32]}


def job_name(job: Job) -> str:
    """Return a name that runs of the same job share, whatever their limits."""
    conf = sorted(job.conf.items())
    return "verger-" + digest([job.entry, job.arguments, job.package, job.archive, conf])[:12]


def digest(value: Any) -> str:
    """Return the hex sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def spark_settings(job: Job) -> dict[str, str]:
    """Return the settings of Spark that the run is submitted with; ``conf`` wins over ours.

    Raises
    ------
    ConfigError
        If ``conf`` asks for more executors than the limit has.
    """
    check_counts(job)
    archive = {"spark.archives": f"{job.package}/{job.archive}#{UNPACKED}"}
    return {
        **({} if job.setup.image else archive),
        "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": job.python,
        "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": job.python,
        "spark.emr-serverless.driverEnv.AWS_REGION": job.region,
        "spark.emr-serverless.driverEnv.VERGER_HOME": DRIVER_HOME,
        **worker_settings(job),
        **_disk(job.limit.executor),
        **job.conf,
    }


def _disk(executor: Worker) -> dict[str, str]:
    """Return the setting of a disk beyond the one that comes with a worker."""
    name = "spark.emr-serverless.executor.disk"
    return {name: f"{executor.disk_gb}g"} if executor.disk_gb > FREE_DISK_GB else {}


def check_counts(job: Job) -> None:
    """Refuse settings of one's own that ask for more executors than the limit has.

    EMR refuses a run whose initial executors are more than the most, and what a run may cost is
    computed from the limit.

    Raises
    ------
    ConfigError
    """
    for name in COUNTS:
        value = job.conf.get(name, "0")
        if not value.isdecimal() or int(value) > job.limit.executors:
            raise ConfigError(
                f"conf {name}={value} must be a number up to max_executors="
                f"{job.limit.executors}; --max-executors sets it"
            )


def worker_settings(job: Job) -> dict[str, str]:
    """Return the settings of every run, Serverless or on EC2: its interpreter and sizes."""
    executor = job.limit.executor
    jvm_gb = executor.memory_gb // EXECUTOR_JVM_SHARE
    return {
        "spark.executorEnv.PYSPARK_PYTHON": job.python,
        "spark.executorEnv.AWS_REGION": job.region,
        "spark.driver.cores": str(DRIVER.vcpu),
        "spark.driver.memory": f"{DRIVER_JVM_GB}g",
        "spark.driver.memoryOverhead": f"{DRIVER.memory_gb - DRIVER_JVM_GB}g",
        "spark.executor.cores": str(executor.vcpu),
        "spark.executor.memory": f"{jvm_gb}g",
        "spark.executor.memoryOverhead": f"{executor.memory_gb - jvm_gb}g",
        "spark.dynamicAllocation.enabled": "true",
        **dict.fromkeys(COUNTS, "1"),
        "spark.dynamicAllocation.minExecutors": "0",
        "spark.dynamicAllocation.maxExecutors": str(job.limit.executors),
        # What partitions are cut for: all cores, not those of the executors that are up by then.
        "spark.default.parallelism": str(job.limit.executors * executor.vcpu),
        "spark.log.level": "WARN",
    }


def spark_parameters(job: Job) -> str:
    """Return the settings as words of ``spark-submit``, in the one form that AWS's examples have.

    Whether EMR Serverless reads quotes is not written down, so there are none: a setting that
    would need them is in :func:`spark_defaults`.
    """
    return " ".join(
        f"--conf {key}={value}"
        for key, value in spark_settings(job).items()
        if _is_plain(key, value)
    )


def spark_defaults(job: Job) -> dict[str, Any]:
    """Return the settings that no plain word can hold as JSON; empty if there are none."""
    rest = {key: value for key, value in spark_settings(job).items() if not _is_plain(key, value)}
    defaults = {"classification": "spark-defaults", "properties": rest}
    return {"applicationConfiguration": [defaults]} if rest else {}


def _is_plain(key: str, value: str) -> bool:
    return _PLAIN.fullmatch(f"{key}={value}") is not None


def session_policy(job: Job) -> str:
    """Return the rights of this one run: those of the role, narrowed to its own prefixes.

    Raises
    ------
    ConfigError
        If the addresses are so long that AWS takes no such policy.
    """
    root = f"arn:{job.partition}:s3:::"
    seen = [*job.reads, *job.writes, job.package]
    buckets = _buckets(seen)
    statements = [
        _allow(["s3:GetBucketLocation"], [root + bucket for bucket in buckets]),
        *(_allow_list(root + bucket, prefixes) for bucket, prefixes in buckets.items()),
        _allow(["s3:GetObject"], _objects(root, seen)),
        _allow(
            ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            _objects(root, job.writes),
        ),
        _allow(["s3:PutObject"], _objects(root, [job.logs])),
        *([_allow(KEY_RIGHTS, [key])] if (key := job.setup.kms_key) else []),
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
    if len(policy) > MAX_POLICY:
        raise ConfigError(
            f"the addresses of SRC, OUT and the package are too long: the rights of the run take "
            f"{len(policy)} characters, and AWS takes {MAX_POLICY}; choose shorter prefixes"
        )
    return policy


def _allow(actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}


def _allow_list(bucket: str, prefixes: list[str]) -> dict[str, Any]:
    """Allow to list some prefixes, and to learn that an object is missing.

    To look for one object names no prefix. Without the right to list, S3 says that a missing
    object is forbidden, and a run could not tell a new OUT from one that it may not read.
    """
    condition = {"StringLikeIfExists": {"s3:prefix": prefixes}}
    return _allow(["s3:ListBucket"], [bucket]) | {"Condition": condition}


def _buckets(addresses: Iterable[str]) -> dict[str, list[str]]:
    """Return buckets, and the prefixes of each that may be listed."""
    found: dict[str, list[str]] = {}
    for address in addresses:
        bucket, prefix = split_address(address)
        prefixes = [_literal(prefix), f"{_literal(prefix)}/*"] if prefix else ["*"]
        found[bucket] = list(dict.fromkeys([*found.get(bucket, []), *prefixes]))
    return found


def _objects(root: str, addresses: Iterable[str]) -> list[str]:
    """Return patterns for the objects below addresses, and for the addresses themselves."""
    found = []
    for address in addresses:
        bucket, prefix = split_address(address)
        place = f"{root}{bucket}/{_literal(prefix)}" if prefix else f"{root}{bucket}"
        found += [place, f"{place}/*"] if prefix else [f"{place}/*"]
    return found


def _literal(text: str) -> str:
    """Escape ``*``, ``?`` and ``$``, which have a meaning in a policy."""
    return re.sub(r"[*?$]", lambda found: "${" + found[0] + "}", text)
