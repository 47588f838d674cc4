"""The only place that imports boto3: clients, and what AWS says in words that help.

boto3 comes with the extra ``aws``. It finds credentials as all of AWS' tools do:
variables, a profile, a role. Nothing here asks for keys, keeps or prints them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from verger.emr.region import check_region
from verger.errors import CloudError, ConfigError, missing_extra

#: Times that a request is tried; botocore waits longer and longer between, with jitter, where AWS
#: throttles or fails.
ATTEMPTS = 8
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60

#: What S3 calls an object, or a bucket, that is not there.
_MISSING = ("404", "NoSuchKey", "NoSuchBucket", "NotFound", "ResourceNotFoundException")
_FORBIDDEN = ("403", "AccessDenied", "AccessDeniedException", "Forbidden")


@dataclass(frozen=True)
class Cloud:
    """The clients of one region.

    Attributes
    ----------
    region : str
    emr : botocore client
        Of EMR Serverless.
    s3 : botocore client
    """

    region: str
    emr: Any
    s3: Any

    @cached_property
    def clusters(self) -> Any:
        """Client of EMR on EC2, made when it is first asked for."""
        return self.client("emr")

    def client(self, service: str, region: str | None = None) -> Any:
        """Return the client of another service, in the same region unless another is named."""
        return _client(service, region or self.region)


def connect(region: str | None, *, allow_region: bool = False) -> Cloud:
    """Return the clients of a region; nothing is asked of AWS yet.

    Parameters
    ----------
    region : str or None
        By default that of ``AWS_REGION``, or of the profile.
    allow_region : bool
        Let it lie outside the European Union.

    Raises
    ------
    EnvironmentNotReadyError
        If boto3 is not installed.
    ConfigError
        If there is no region, or it is refused.
    """
    name = region or _default_region()
    if name is None:
        raise ConfigError("no region: name one with --region, such as eu-west-3, or set AWS_REGION")
    check_region(name, allow=allow_region)
    return Cloud(name, _client("emr-serverless", name), _client("s3", name))


def _boto3() -> Any:
    try:
        import boto3
    except ImportError as err:
        raise missing_extra("boto3", "verger emr", "aws") from err
    return boto3


def _default_region() -> str | None:
    with aws_errors("read the AWS configuration"):
        region: str | None = _boto3().Session().region_name
        return region


def _client(service: str, region: str) -> Any:
    boto3 = _boto3()
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
    )
    with aws_errors("read the AWS configuration"):
        return boto3.Session().client(service, region_name=region, config=config)


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Raise what AWS says of a request as an error that names what was wanted.

    Parameters
    ----------
    what : str
        After "cannot", such as ``start the run``.

    Raises
    ------
    CloudError
    """
    from boto3.exceptions import Boto3Error
    from botocore import exceptions

    try:
        yield
    except (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
    ) as err:
        raise CloudError(
            f"cannot {what}: no usable AWS credentials ({err}); aws configure, aws sso login, or "
            "AWS_PROFILE"
        ) from err
    except exceptions.ClientError as err:
        raise CloudError(f"cannot {what}: {_words(err)}") from err
    except (exceptions.BotoCoreError, Boto3Error) as err:  # the latter of uploads in parts
        raise CloudError(f"cannot {what}: {err}") from err


def _words(err: Any) -> str:
    code, message = code_of(err), err.response["Error"].get("Message", "")
    if code in _FORBIDDEN:
        return f"{err.operation_name} is not allowed ({message or code}); verger emr doctor"
    if code in ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId"):
        return f"the AWS credentials have expired or are none ({code})"
    return f"{err.operation_name}: {message or code}"


def code_of(err: Any) -> str:
    """Return the code of a botocore ClientError, such as ``NoSuchKey``."""
    return str(err.response["Error"].get("Code", ""))


def is_missing(err: BaseException | None) -> bool:
    """Whether an error is about something that is not there."""
    return hasattr(err, "response") and code_of(err) in _MISSING


def is_forbidden(err: BaseException | None) -> bool:
    """Whether an error is about a right that one has not."""
    return hasattr(err, "response") and code_of(err) in _FORBIDDEN


# Objects


def split_address(address: str) -> tuple[str, str]:
    """Return bucket and key, or prefix, of ``s3://bucket/key``.

    Raises
    ------
    ConfigError
        If it is no such address.
    """
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in ("s3", "s3a", "s3n") or not bucket:
        raise ConfigError(f"{address!r}: must be s3://bucket/prefix")
    return bucket, key.rstrip("/")


def read_object(cloud: Cloud, address: str) -> bytes | None:
    """Read a whole object; None if there is none, or none that one may see."""
    bucket, key = split_address(address)
    try:
        with aws_errors(f"read {address}"):
            content: bytes = cloud.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            return content
    except CloudError as err:
        # Without the right to list, what is not there is forbidden.
        if is_missing(err.__cause__) or is_forbidden(err.__cause__):
            return None
        raise


def check_bucket(cloud: Cloud, address: str) -> None:
    """Refuse a bucket that does not exist or lies in another region.

    Raises
    ------
    ConfigError
        If it is elsewhere: photos would travel, and traffic between regions is billed.
    CloudError
        If it does not exist or cannot be looked at.
    """
    bucket, _ = split_address(address)
    with aws_errors(f"look at the bucket {bucket}"):
        found = cloud.s3.get_bucket_location(Bucket=bucket).get("LocationConstraint")
    region = {None: "us-east-1", "": "us-east-1", "EU": "eu-west-1"}.get(found, found)
    if region != cloud.region:
        raise ConfigError(
            f"{address}: the bucket is in {region}, and the run in {cloud.region}; bucket, "
            f"application and logs must be in one region: --region {region}, or another bucket"
        )
