"""Whether EMR Serverless may take a role: trust policies as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from verger.emr.trust import check_trust
from verger.errors import CloudError

ROLE = "arn:aws:iam::123456789012:role/verger-JobRole"
APPLICATION = "arn:aws:emr-serverless:eu-west-3:123456789012:/applications/00abc"


def trust(service: Any = "emr-serverless.amazonaws.com", **condition: Any) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    return {"Statement": [statement | ({"Condition": condition} if condition else {})]}


@pytest.mark.parametrize(
    "policy",
    [
        trust(),
        trust(["ec2.amazonaws.com", "emr-serverless.amazonaws.com"]),
        trust(StringEquals={"aws:SourceAccount": "123456789012"}),
        trust(ArnLike={"aws:SourceArn": [APPLICATION.replace("00abc", "*")]}),
        trust(StringEquals={"sts:ExternalId": "another matter"}),
    ],
)
def test_a_role_that_emr_may_take_passes(policy: dict[str, Any]) -> None:
    assert check_trust(policy, ROLE, APPLICATION).startswith(ROLE)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({}, "no statement names that service"),
        (trust("ec2.amazonaws.com"), "no statement names that service"),
        (
            trust(StringEquals={"aws:SourceAccount": "999999999999"}),
            r"StringEquals aws:SourceAccount=999999999999 is not of 123456789012; the trust pol",
        ),
        (
            trust(ArnLike={"aws:SourceArn": APPLICATION.replace("00abc", "00old")}),
            r"ArnLike aws:SourceArn=.*/00old is not of .*/00abc",
        ),
    ],
)
def test_a_role_that_emr_may_not_take_is_told_with_the_condition(
    policy: dict[str, Any], says: str
) -> None:
    """Without it a run fails after minutes, and AWS names no condition."""
    with pytest.raises(CloudError, match=says):
        check_trust(policy, ROLE, APPLICATION)
