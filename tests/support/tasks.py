"""Functions that tests have an engine run: workers must be able to import them."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from verger.engine.tasks import Task


def add(task: Task, number: int) -> int:
    return task.number + number


def process(task: Task, _: None) -> int:
    return os.getpid()


def variable(task: Task, name: str) -> str | None:
    return os.environ.get(name)


def is_safe_path(task: Task, _: None) -> bool:
    return sys.flags.safe_path


def import_module(task: Task, name: str) -> None:
    importlib.import_module(name)


def has_loaded(task: Task, module: str) -> bool:
    return module in sys.modules


def lists_of_arrow(task: Task, values: list[int]) -> tuple[list[int], int, bool]:
    import pyarrow as pa

    return pa.array(values).to_pylist(), task.attempt, "pandas" in sys.modules


def die_once(task: Task, how: tuple[int, int, str]) -> int:
    number, signal, mark = how
    if task.number == number and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal)
        time.sleep(60)
    return task.attempt


def die(task: Task, number: int) -> int:
    if task.number == number:
        os.kill(os.getpid(), 9)
        time.sleep(60)
    return task.number


def fail(task: Task, err: Exception) -> None:
    raise err


def divide(task: Task, note: str) -> float:
    with open(note, "a") as file:
        file.write(str(task.attempt))
    return 1 / task.number


class Stubborn(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("no")


def fail_stubbornly(task: Task, _: None) -> None:
    raise Stubborn("will not travel")


def sleep(task: Task, seconds: list[float]) -> None:
    time.sleep(seconds[task.number])


def note_and_sleep(task: Task, folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)


def give_back(task: Task, value: Any) -> Any:
    return value


def double(pieces: Iterator[int], more: int) -> Iterator[int]:
    return (2 * piece + more for piece in pieces)
