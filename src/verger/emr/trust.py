"""Check whether EMR Serverless may take a role, by the role's trust policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from verger.errors import CloudError

#: Who must be trusted.
SERVICE = "emr-serverless.amazonaws.com"
#: What is said of a role that could not be taken.
ADVICE = (
    f"the trust policy of the role must let {SERVICE} do sts:AssumeRole, and a condition in it "
    "(aws:SourceAccount, aws:SourceArn) must name the account and the application of the run"
)


def check_trust(policy: Mapping[str, Any], role: str, application: str) -> str:
    """Say under which condition EMR Serverless may take a role.

    Parameters
    ----------
    policy : mapping
        The role's trust policy.
    role : str
        Its ARN.
    application : str
        ARN of the application, which may end with ``*``.

    Raises
    ------
    CloudError
        If EMR Serverless may not take it, with the condition that refuses this application.
    """
    refused = []
    for statement in _of_service(policy):
        conditions = statement.get("Condition", {})
        why = list(_refusals(conditions, application))
        if not why:
            return f"{role}, {conditions or 'without a condition'}"
        refused += why
    reason = "; ".join(refused) or "no statement names that service"
    raise CloudError(f"{role}: {reason}; {ADVICE}")


def says_not_assumed(details: str) -> bool:
    """Whether what AWS says of a run is that it could not take the role."""
    text = details.lower().replace(" ", "")
    return "assumerole" in text or "assumethe" in text


def _of_service(policy: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the statements that let EMR Serverless take the role."""
    for statement in _as_list(policy.get("Statement")):
        principal = statement.get("Principal", {})
        services = _as_list(principal.get("Service")) if isinstance(principal, dict) else []
        if (
            statement.get("Effect") == "Allow"
            and SERVICE in services
            and "sts:AssumeRole" in _as_list(statement.get("Action"))
        ):
            yield statement


def _refusals(conditions: Mapping[str, Any], application: str) -> Iterator[str]:
    """Yield the conditions on account or application that do not hold of an application."""
    known = {"aws:sourceaccount": application.split(":")[4], "aws:sourcearn": application}
    for operator, entries in conditions.items():
        for key, values in entries.items():
            value = known.get(key.lower())
            if value is not None and not any(_fits(value, entry) for entry in _as_list(values)):
                yield f"{operator} {key}={values} is not of {value}"


def _fits(value: str, pattern: str) -> bool:
    return fnmatchcase(value, pattern) or fnmatchcase(pattern, value)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
