"""A stand-in for EMR Serverless on loopback: real HTTP requests, states that are walked, faults.

A request that AWS' own service model does not allow is refused, names and patterns included. What a
run does is up to a runner; without one it walks through a list of states.
"""

from __future__ import annotations

import gzip
import json
import re
import shlex
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import botocore.session
from botocore.model import OperationModel, Shape
from botocore.validate import ParamValidator

from support.http import Exchange, Server

MODEL = botocore.session.get_session().get_service_model("emr-serverless")
ACCOUNT = "123456789012"
STATES = ("SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "SUCCESS")
ENDED = ("SUCCESS", "FAILED", "CANCELLED")
#: What else is asked here: the account's quota of virtual cores, by its target.
QUOTAS = "ServiceQuotasV20190624."
#: EMR Serverless' own default of executors at the start.
INSTANCES = 3
#: Sizes that a run's settings name, in the words of the bill.
_BILLED = {"vCPUHour": ("cores",), "memoryGBHour": ("memory", "memoryOverhead")}


class Process(Protocol):
    """What a runner has started."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def logs(self) -> dict[str, bytes]: ...


Runner = Callable[[dict[str, Any]], Process]
#: Takes the address of a log and its content.
Store = Callable[[str, bytes], None]


def settings_of(run: dict[str, Any]) -> dict[str, str]:
    """Return the settings of Spark that a run is asked for with, from both places.

    Whether AWS splits the parameters as a shell does or at blanks is written nowhere: words that
    the two read differently are refused.
    """
    asked = run["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"]
    words = asked.split()
    if words != shlex.split(asked):
        raise ValueError(f"sparkSubmitParameters depend on who splits them: {asked}")
    assert set(words[::2]) == {"--conf"}
    defaults = run["configurationOverrides"].get("applicationConfiguration", [])
    assert all(entry["classification"] == "spark-defaults" for entry in defaults)
    found = {key: value for entry in defaults for key, value in entry["properties"].items()}
    return found | dict(word.split("=", 1) for word in words[1::2])


def asked_in_address(path: str, operation: OperationModel) -> dict[str, Any]:
    """Return the parameters of a request that stand behind the ``?`` of its address."""
    given = dict(parse_qsl(urlsplit(path).query))
    named = {
        shape.serialization.get("name", name): (name, shape)
        for name, shape in operation.input_shape.members.items()
        if shape.serialization.get("location") == "querystring"
    }
    return {
        named[key][0]: int(value) if named[key][1].type_name == "integer" else value
        for key, value in given.items()
    }


def problems(request: dict[str, Any], shape: Shape) -> list[str]:
    """Return what is wrong with a request: types and bounds, then the patterns of all texts."""
    report = ParamValidator().validate(request, shape)
    found = [report.generate_report()] if report.has_errors() else []
    return found or list(_patterns(request, shape, shape.name))


def _patterns(value: Any, shape: Shape, where: str):
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            if name in value:
                yield from _patterns(value[name], member, f"{where}.{name}")
    elif shape.type_name == "list":
        for item in value:
            yield from _patterns(item, shape.member, where)
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _patterns(key, shape.key, where)
            yield from _patterns(item, shape.value, where)
    elif shape.type_name == "string":
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, value, re.DOTALL):
            yield f"{where}={value!r} is not {pattern}"
        if len(value) > shape.metadata.get("max", len(value)):
            yield f"{where} has {len(value)} characters"


@dataclass
class Standin:
    """The service.

    Attributes
    ----------
    states : sequence of str
        What a run walks through where there is no runner, one at each look.
    details : str
        What is said of the last state.
    runner : Runner or None
    store : Store or None
        Takes the logs.
    logs : dict of str to bytes
        What the driver prints where there is no runner.
    faults : dict of str to list of (int, str)
        Operation to answers that are given first, such as ``(429, "ThrottlingException")``.
    requests : list of (str, dict)
        All that was asked.
    billed : dict
        Told of runs that have ended, where there is no runner; with one, it is what driver and
        executors would have been for all of its time.
    clock : callable
        Seconds by which a run is timed and ended: a test may let them fly.
    quota_vcpu : float or None
        The account's quota; None where it may not be read.
    """

    states: Sequence[str] = STATES
    details: str = "-"
    runner: Runner | None = None
    store: Store | None = None
    logs: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    billed: dict[str, float] = field(
        default_factory=lambda: {"vCPUHour": 0.5, "memoryGBHour": 1.5, "storageGBHour": 0.0}
    )
    clock: Callable[[], float] = time.time
    quota_vcpu: float | None = 16

    def __post_init__(self) -> None:
        self.applications: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self._tokens: dict[str, tuple[dict[str, Any], str]] = {}
        self._processes: dict[str, Process] = {}
        self._lock = threading.Lock()
        self._server = Server(self._serve)

    @property
    def address(self) -> str:
        return self._server.address

    @property
    def counts(self) -> Counter[str]:
        """How often each operation was asked."""
        return Counter(name for name, _ in self.requests)

    def close(self) -> None:
        for process in self._processes.values():
            process.terminate()
        self._server.close()

    def _serve(self, exchange: Exchange) -> None:
        """Find the operation that a request is for, and send its answer."""
        path = urlsplit(exchange.path).path
        if exchange.headers.get("X-Amz-Target", "").startswith(QUOTAS):
            self._tell_quota(exchange)
            return
        status, value = 404, {"__type": "UnknownOperationException", "message": path}
        for operation in map(MODEL.operation_model, MODEL.operation_names):
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.http["requestUri"])
            found = re.fullmatch(pattern, path)
            if operation.http["method"] == exchange.command and found:
                request = {**json.loads(exchange.body or b"{}"), **found.groupdict()}
                request |= asked_in_address(exchange.path, operation)
                status, value = self.answer(operation, request)
                break
        headers = [("Content-Type", "application/json")]
        if status >= 400:
            headers.append(("x-amzn-ErrorType", value["__type"]))
        exchange.reply(json.dumps(value).encode(), status=status, headers=headers)

    def _tell_quota(self, exchange: Exchange) -> None:
        """Answer GetServiceQuota of Service Quotas."""
        asked = json.loads(exchange.body)
        assert asked == {"ServiceCode": "emr-serverless", "QuotaCode": "L-D05C8A75"}
        status, value = 200, {"Quota": {"Value": self.quota_vcpu}}
        if self.quota_vcpu is None:
            status, value = 400, {"__type": "AccessDeniedException", "Message": "not allowed"}
        headers = [("Content-Type", "application/x-amz-json-1.1")]
        exchange.reply(json.dumps(value).encode(), status=status, headers=headers)

    def answer(self, operation: OperationModel, request: dict[str, Any]) -> tuple[int, Any]:
        """Answer one request, under the lock."""
        with self._lock:
            self.requests.append((operation.name, request))
            if self.faults.get(operation.name):
                status, code = self.faults[operation.name].pop(0)
                return status, {"__type": code, "message": f"a fault on demand: {code}"}
            wrong = problems(request, operation.input_shape)
            if wrong:
                return 400, {"__type": "ValidationException", "message": "; ".join(wrong)}
            try:
                return 200, getattr(self, f"_{operation.name}")(request)
            except KeyError as err:
                message = f"{err} does not exist"
                return 404, {"__type": "ResourceNotFoundException", "message": message}
            except ValueError as err:
                return 400, {"__type": "ConflictException", "message": str(err)}

    # Operations

    def _CreateApplication(self, request: dict[str, Any]) -> dict[str, Any]:
        def create(number: str) -> None:
            self.applications[number] = {
                **{k: v for k, v in request.items() if k != "clientToken"},
                "applicationId": number,
                "state": "CREATED",
                "arn": f"arn:aws:emr-serverless:eu-west-3:{ACCOUNT}:/applications/{number}",
                "createdAt": time.time(),
                "updatedAt": time.time(),
            }

        number = self._once(request, create, "00app")
        found = self.applications[number]
        return {"applicationId": number, "arn": found["arn"], "name": found.get("name", "")}

    def _GetApplication(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"application": self.applications[request["applicationId"]]}

    def _UpdateApplication(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self.applications[request["applicationId"]]
        if found["state"] not in ("CREATED", "STOPPED"):
            raise ValueError(f"application is {found['state']}")
        found |= {k: v for k, v in request.items() if k != "clientToken"}
        return {"application": found}

    def _ListApplications(self, request: dict[str, Any]) -> dict[str, Any]:
        found = [app | {"id": number} for number, app in self.applications.items()]
        return {"applications": found}

    def _StopApplication(self, request: dict[str, Any]) -> dict[str, Any]:
        self.applications[request["applicationId"]]["state"] = "STOPPED"
        return {}

    def _DeleteApplication(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self.applications[request["applicationId"]]
        if found["state"] not in ("CREATED", "STOPPED"):
            raise ValueError(f"application is {found['state']}")
        found["state"] = "TERMINATED"
        return {}

    def _StartJobRun(self, request: dict[str, Any]) -> dict[str, Any]:
        application = self.applications[request["applicationId"]]
        settings_of(request)
        application["state"] = "STARTED"

        def start(number: str) -> None:
            arn = f"{application['arn']}/jobruns/{number}"
            self.runs[number] = {
                **{k: v for k, v in request.items() if k != "clientToken"},
                "jobRunId": number,
                "arn": arn,
                "createdBy": f"arn:aws:iam::{ACCOUNT}:user/me",
                "executionRole": request["executionRoleArn"],
                "createdAt": time.time(),
                "updatedAt": time.time(),
                "releaseLabel": application["releaseLabel"],
                "state": self.states[0],
                "stateDetails": "-",
                "step": 0,
            }

        number = self._once(request, start, "00run")
        return {
            "applicationId": request["applicationId"],
            "jobRunId": number,
            "arn": self.runs[number]["arn"],
        }

    def _GetJobRun(self, request: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[request["jobRunId"]]
        shown = {k: v for k, v in run.items() if k != "step"}
        self._step(run)
        return {"jobRun": shown}

    def _GetDashboardForJobRun(self, request: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[request["jobRunId"]]
        return {"url": f"https://p-{run['jobRunId']}.emrappui-prod.eu-west-3.amazonaws.com/shs"}

    def _ListJobRuns(self, request: dict[str, Any]) -> dict[str, Any]:
        wanted = request["applicationId"]
        found = [run for run in self.runs.values() if run["applicationId"] == wanted]
        return {"jobRuns": [run | {"id": run["jobRunId"]} for run in reversed(found)]}

    def _CancelJobRun(self, request: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[request["jobRunId"]]
        if run["jobRunId"] in self._processes:
            self._processes[run["jobRunId"]].terminate()
        self._end(run, "CANCELLED", "Job run was cancelled")
        return {"applicationId": run["applicationId"], "jobRunId": run["jobRunId"]}

    # How a run goes

    def _once(self, request: dict[str, Any], make: Callable[[str], None], prefix: str) -> str:
        """Do what is asked once for each token; the same token with another request is refused."""
        token = request["clientToken"]
        if token not in self._tokens:
            number = f"{prefix}{len(self._tokens):08}"
            make(number)
            self._tokens[token] = (request, number)
        earlier, number = self._tokens[token]
        if earlier != request:
            raise ValueError("this token was used for another request")
        return number

    def _step(self, run: dict[str, Any]) -> None:
        """Let a run come one state further, as far as it is."""
        if run["state"] in ENDED:
            return
        if run["state"] == "CANCELLING":
            self._end(run, "CANCELLED", "Job run timed out")
            return
        if self.runner is not None and run["state"] == "RUNNING":
            self._look(run, self._processes[run["jobRunId"]])
            return
        if (refusal := self._refusal(run)) is not None:
            self._end(run, "FAILED", refusal)
            return
        run["step"] += 1
        state = self.states[min(run["step"], len(self.states) - 1)]
        if state in ENDED:
            self._end(run, state, self.details)
            return
        run["state"] = state
        if state == "RUNNING" and self.runner is not None:
            self._processes[run["jobRunId"]] = self.runner(run)
            run["startedAt"] = self.clock()

    def _refusal(self, run: dict[str, Any]) -> str | None:
        """Return why AWS would end a run before it has begun: its executors, or their room."""
        conf = {"spark.executor.instances": INSTANCES} | settings_of(run)
        least, first, most = (
            int(conf.get(f"spark.dynamicAllocation.{name}Executors", default))
            for name, default in (("min", 0), ("initial", INSTANCES), ("max", 2**31))
        )
        first = max(first, least, int(conf["spark.executor.instances"]))
        if not least <= first <= most:
            return (
                "Maximum value of spark.dynamicAllocation.minExecutors, spark.executor.instances, "
                f"spark.dynamicAllocation.initialExecutors: {first} must be between minExecutor "
                f"{least} and maxExecutors {most}"
            )
        asked = _use(run, 1.0)
        room = self.applications[run["applicationId"]].get("maximumCapacity")
        for name, key in (("vCPUHour", "cpu"), ("memoryGBHour", "memory")):
            if room and asked[name] > int(room[key].split()[0]):
                return f"ApplicationMaxCapacityExceededException: {key} is at most {room[key]}"
        if asked["vCPUHour"] > (self.quota_vcpu or asked["vCPUHour"]):
            return f"ServiceQuotaExceededException: vCPU is at most {self.quota_vcpu}"
        return None

    def _look(self, run: dict[str, Any], process: Process) -> None:
        """See whether a driver has ended, and end it when its time is over."""
        code, until = process.poll(), run["startedAt"] + 60 * run["executionTimeoutMinutes"]
        if code is None and self.clock() < until:
            return
        process.terminate()
        self.logs = process.logs()
        if code is None:
            run |= {"state": "CANCELLING", "stateDetails": "Job run timed out", "endedAt": until}
        else:
            self._end(run, "SUCCESS" if code == 0 else "FAILED", f"ExitCode: {code}")

    def _end(self, run: dict[str, Any], state: str, details: str) -> None:
        ended = run.setdefault("endedAt", self.clock())
        seconds = ended - run["startedAt"] if "startedAt" in run else 90
        billed = _use(run, seconds / 3600) if self.runner is not None else self.billed
        run |= {
            "state": state,
            "stateDetails": details,
            "billedResourceUtilization": billed,
            "totalExecutionDurationSeconds": int(seconds),
        }
        monitoring = run["configurationOverrides"]["monitoringConfiguration"]
        logs = monitoring["s3MonitoringConfiguration"]["logUri"].rstrip("/")
        below = f"applications/{run['applicationId']}/jobs/{run['jobRunId']}/SPARK_DRIVER"
        for name, content in self.logs.items() if self.store else ():
            self.store(f"{logs}/{below}/{name}.gz", gzip.compress(content))


def _use(run: dict[str, Any], hours: float) -> dict[str, float]:
    """Return what a run is billed whose driver and executors were there for so many hours."""
    conf = settings_of(run)
    counts = {"driver": 1, "executor": int(conf["spark.dynamicAllocation.maxExecutors"])}
    return {"storageGBHour": 0.0} | {
        name: hours
        * sum(
            n * int(conf[f"spark.{kind}.{size}"].removesuffix("g"))
            for kind, n in counts.items()
            for size in sizes
        )
        for name, sizes in _BILLED.items()
    }
