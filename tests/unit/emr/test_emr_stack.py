"""The infrastructure: what AWS' own linter says of it, and who may do what."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import decode
from click.testing import CliRunner

from verger.cli import app
from verger.emr.jobs import KEY_RIGHTS
from verger.emr.region import EU_REGIONS, WITHOUT_ALARM, check_region
from verger.emr.stack import deploy_command, template, write_stack
from verger.errors import ConfigError, OutputError, OutputExistsError

READS = ("Get", "List", "Describe")
CLUSTERS = "arn:${AWS::Partition}:elasticmapreduce:${AWS::Region}:${AWS::AccountId}"
STACK = {"name": "verger", "region": "eu-west-3", "alarm_email": "me@example.org"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stack") / "stack.yaml"
    write_stack(path)
    return path


@pytest.fixture(scope="module")
def stack(path: Path) -> dict[str, Any]:
    found, problems = decode(str(path))
    assert not problems
    return dict(found)


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).with_name("cfn-lint")
    command = [linter, "--include-checks", "I", "--regions", *EU_REGIONS, "--", path]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_linter_finds_nothing_in_any_region(path: Path) -> None:
    done = lint(path)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_would_find_something(path: Path, tmp_path: Path) -> None:
    """A property that does not exist is found: the check can fail."""
    broken = tmp_path / "broken.yaml"
    broken.write_text(path.read_text().replace("IdleTimeoutMinutes", "IdleTimeout"))
    done = lint(broken)
    assert done.returncode != 0
    assert "IdleTimeout" in done.stdout


# Who may do what


def statements(stack: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every statement that allows something, and the resource it belongs to."""
    for name, resource in stack["Resources"].items():
        properties = resource["Properties"]
        documents = [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
        for policy in properties.get("Policies", ()):
            policy = policy["Fn::If"][1] if "Fn::If" in policy else policy
            documents.append(policy["PolicyDocument"])
        for document in documents:
            for statement in document["Statement"]:
                statement = statement["Fn::If"][1] if "Fn::If" in statement else statement
                if statement["Effect"] == "Allow":
                    yield name, statement


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def text_of(resource: Any) -> str:
    """Return an address with its functions undone: ``Bucket.Arn/photos/*``."""
    if isinstance(resource, dict):
        ((function, value),) = resource.items()
        return ".".join(value) if function == "Fn::GetAtt" and isinstance(value, list) else value
    return str(resource)


def test_no_action_is_a_pattern_and_no_resource_is_everything(stack: dict[str, Any]) -> None:
    """Not one right is wider than its name; writing and reading alike name what they reach."""
    found = list(statements(stack))
    assert len(found) >= 12
    for _, statement in found:
        assert all("*" not in action for action in as_list(statement["Action"]))
        for resource in as_list(statement["Resource"]):
            assert text_of(resource) not in ("*", "arn:aws:s3:::*")
            assert text_of(resource).startswith(
                (
                    "Bucket.Arn",
                    "${Bucket.Arn}/",
                    "JobRole.Arn",
                    "Application.Arn",
                    "${Application.Arn}/jobruns/",
                    "AWS::StackId",
                    "arn:${AWS::Partition}:s3:::${PhotosBucket}",
                    "ServiceRole.Arn",
                    f"{CLUSTERS}:cluster/",
                    "KmsKeyArn",
                )
            )


def test_a_job_writes_results_and_logs_and_nothing_else(stack: dict[str, Any]) -> None:
    """Photos and the environment are read only; the role can grant and pass nothing."""
    written = {
        text_of(resource)
        for name, statement in statements(stack)
        if name == "JobRole"
        and as_list(statement["Action"]) != KEY_RIGHTS
        and not all(a.split(":")[1].startswith(READS) for a in as_list(statement["Action"]))
        for resource in as_list(statement["Resource"])
    }
    assert written == {"${Bucket.Arn}/results", "${Bucket.Arn}/results/*", "${Bucket.Arn}/logs/*"}
    services = {
        a.split(":")[0]
        for n, s in statements(stack)
        if n == "JobRole"
        for a in as_list(s["Action"])
    }
    assert services == {"s3", "kms"}


def test_only_emr_serverless_of_this_account_takes_the_role(stack: dict[str, Any]) -> None:
    """And the one who submits may hand it to that service alone."""
    trust, machines = trusts(stack, "JobRole")
    assert trust["Principal"] == {"Service": "emr-serverless.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    assert machines["Fn::If"][0] == "HasClusters"
    (passing,) = passes(stack, "SubmitPolicy")
    assert passing["Resource"] == {"Fn::GetAtt": ["JobRole", "Arn"]}
    assert passing["Condition"] == {
        "StringEquals": {"iam:PassedToService": "emr-serverless.amazonaws.com"}
    }


def trusts(stack: dict[str, Any], role: str) -> list[dict[str, Any]]:
    """Return who may take a role."""
    document = stack["Resources"][role]["Properties"]["AssumeRolePolicyDocument"]
    return list(document["Statement"])


def passes(stack: dict[str, Any], owner: str) -> list[dict[str, Any]]:
    """Return which roles somebody may hand on."""
    return [s for n, s in statements(stack) if n == owner and s["Action"] == "iam:PassRole"]


def test_a_stack_knows_clusters_only_if_it_is_told_to(stack: dict[str, Any]) -> None:
    assert stack["Parameters"]["Clusters"]["Default"] == "no"
    assert stack["Conditions"]["HasClusters"] == {"Fn::Equals": [{"Ref": "Clusters"}, "yes"]}
    conditional = {
        name
        for part in ("Resources", "Outputs")
        for name, value in stack[part].items()
        if value.get("Condition") == "HasClusters"
    }
    assert conditional == {
        "InstanceProfile",
        "ServiceRole",
        "ClusterPolicy",
        "InstanceProfileArn",
        "ServiceRoleArn",
        "ClusterPolicyArn",
    }


def test_the_machines_of_a_cluster_have_the_role_of_a_job_and_no_other(
    stack: dict[str, Any],
) -> None:
    """EMR may hand them that role alone, takes its own for this account alone, and so does who
    submits."""
    assert stack["Resources"]["InstanceProfile"]["Properties"]["Roles"] == [{"Ref": "JobRole"}]
    (trust,) = trusts(stack, "ServiceRole")
    assert trust["Principal"] == {"Service": "elasticmapreduce.amazonaws.com"}
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    (by_emr,) = passes(stack, "ServiceRole")
    assert text_of(by_emr["Resource"]) == "JobRole.Arn"
    assert {
        text_of(s["Resource"]): next(iter(s["Condition"].values()))["iam:PassedToService"]
        for s in passes(stack, "ClusterPolicy")
    } == {"JobRole.Arn": "ec2.amazonaws.com*", "ServiceRole.Arn": "elasticmapreduce.amazonaws.com"}


def test_only_clusters_of_verger_s_are_followed_and_ended(stack: dict[str, Any]) -> None:
    """Nor can anybody mark another's cluster so."""
    found = [
        s
        for _, s in statements(stack)
        if s["Action"] != "iam:PassRole"
        and any("elasticmapreduce:" in a for a in as_list(s["Action"]))
    ]
    (clusters,) = found
    assert clusters["Condition"] == {
        "StringEquals": {"elasticmapreduce:ResourceTag/made-by": "verger"}
    }
    assert "elasticmapreduce:AddTags" not in clusters["Action"]


def test_who_submits_lists_and_reads_photos_of_another_bucket_as_a_job_does(
    stack: dict[str, Any],
) -> None:
    """``submit`` lists the photos from here; without the right it fails before anything starts."""
    rights: dict[str, set[str]] = {"SubmitPolicy": set(), "JobRole": set()}
    for name, statement in statements(stack):
        resource = as_list(statement["Resource"])[0]
        if name in rights and "${PhotosBucket}" in text_of(resource):
            rights[name].add(statement["Action"])
            assert statement["Action"] != "s3:ListBucket" or statement["Condition"] == {
                "StringLikeIfExists": {"s3:prefix": {"Fn::Sub": "${PhotosPrefix}*"}}
            }
    assert rights["SubmitPolicy"] == rights["JobRole"]
    assert rights["JobRole"] == {"s3:GetBucketLocation", "s3:ListBucket", "s3:GetObject"}


# The bucket, the application, the bill


def test_the_bucket_is_private_encrypted_versioned_and_kept(stack: dict[str, Any]) -> None:
    bucket = stack["Resources"]["Bucket"]
    properties = bucket["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    algorithm = rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"]
    assert algorithm == {"Fn::If": ["HasKey", "aws:kms", "AES256"]}
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    rules = {rule["Id"]: rule for rule in properties["LifecycleConfiguration"]["Rules"]}
    assert rules["logs"]["Prefix"] == "logs/"
    assert rules["logs"]["ExpirationInDays"] == {"Ref": "LogDays"}
    assert rules["logs"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    assert rules["old-versions"]["ExpiredObjectDeleteMarker"] is True
    (deny,) = stack["Resources"]["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (deny["Effect"], deny["Principal"], deny["Action"]) == ("Deny", "*", "s3:*")
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_application_is_bounded_and_stops(stack: dict[str, Any]) -> None:
    properties = stack["Resources"]["Application"]["Properties"]
    assert properties["AutoStopConfiguration"]["Enabled"] is True
    assert set(properties["MaximumCapacity"]) == {"Cpu", "Memory"}
    assert stack["Parameters"]["IdleMinutes"]["Default"] <= 15


def test_the_bill_has_an_alarm(stack: dict[str, Any]) -> None:
    properties = stack["Resources"]["Budget"]["Properties"]
    kinds = [
        n["Notification"]["NotificationType"] for n in properties["NotificationsWithSubscribers"]
    ]
    assert kinds == ["ACTUAL", "FORECASTED"]
    assert "Default" not in stack["Parameters"]["AlarmEmail"]  # nobody gets a stack without one


def test_where_there_can_be_no_alarm_it_is_told(stack: dict[str, Any], tmp_path: Path) -> None:
    """The condition of the stack and the words of the command name the same regions."""
    (either,) = stack["Conditions"]["HasAlarm"]["Fn::Not"]
    named = [equal["Fn::Equals"][1] for equal in either["Fn::Or"]]
    assert tuple(named) == WITHOUT_ALARM
    assert stack["Resources"]["Budget"]["Condition"] == "HasAlarm"
    for region in ("eu-north-1", "eu-west-3"):
        arguments = ["emr", "init", str(tmp_path / region), "--region", region]
        done = CliRunner().invoke(app, [*arguments, "--alarm-email", "a@b.fr"])
        assert ("No alarm can be made" in done.output) == (region in WITHOUT_ALARM)


def test_no_secret_and_no_account_is_in_it() -> None:
    text = template()
    assert "AKIA" not in text
    assert not any(word.isdigit() and len(word) == 12 for word in text.split())


# The region


def test_the_stack_and_the_command_line_know_the_same_regions(stack: dict[str, Any]) -> None:
    (rule,) = stack["Rules"].values()
    (assertion,) = rule["Assertions"]
    assert assertion["Assert"]["Fn::Contains"] == [list(EU_REGIONS), {"Ref": "AWS::Region"}]
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "AllowRegion"}, "no"]}
    assert stack["Parameters"]["AllowRegion"]["Default"] == "no"


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-2", "eu-central-2", "ap-south-1"])
def test_a_region_outside_the_union_is_refused(region: str) -> None:
    """London and Zurich are called eu and are not in it."""
    with pytest.raises(ConfigError, match=r"not in the European Union.*--allow-region"):
        check_region(region, allow=False)
    check_region(region, allow=True)


@pytest.mark.parametrize("region", ["", "paris", "eu-west", "EU-WEST-3", "eu-west-3; rm -rf /"])
def test_what_is_no_region_is_refused_even_if_any_is_allowed(region: str) -> None:
    with pytest.raises(ConfigError, match="is no AWS region"):
        check_region(region, allow=True)


# The command


def test_init_writes_the_stack_and_says_how_to_create_it(tmp_path: Path) -> None:
    file = tmp_path / "a stack.yaml"
    arguments = ["emr", "init", str(file), "--region", "eu-west-3", "--alarm-email", "a@b.fr"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert file.read_text() == template()
    (line,) = (line for line in done.output.splitlines() if "cloudformation" in line)
    words = shlex.split(line)
    assert words[:3] == ["aws", "cloudformation", "deploy"]
    assert words[words.index("--template-file") + 1] == str(file)
    assert "AllowRegion=yes" not in words


def test_a_region_that_is_allowed_is_allowed_to_the_stack_too() -> None:
    command = deploy_command(Path("x"), **STACK | {"region": "us-east-1"}, allow_region=True)
    assert "AllowRegion=yes" in shlex.split(command)


@pytest.mark.parametrize(
    ("name", "value"), [("name", "9verger"), ("name", "a b"), ("alarm_email", "nobody")]
)
def test_what_aws_would_refuse_is_refused_before(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        deploy_command(Path("x"), **STACK | {name: value})


def test_a_template_that_was_edited_is_not_replaced(path: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copy(path, tmp_path / "mine.yaml"))
    write_stack(mine)  # the same is there: nothing to lose
    mine.write_text(template() + "# mine\n")
    with pytest.raises(OutputExistsError, match="is there and differs; --overwrite replaces it"):
        write_stack(mine)
    write_stack(mine, overwrite=True)
    assert mine.read_text() == template()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        write_stack(tmp_path / "none" / "stack.yaml")
