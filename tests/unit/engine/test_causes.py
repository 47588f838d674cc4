"""What is told of an error of Java's or Spark's: the last cause that has words."""

from __future__ import annotations

import pytest

from verger.engine.causes import cause_of

NESTED = """\
An error occurred while calling None.org.apache.spark.api.java.JavaSparkContext.
: org.apache.spark.SparkException: Could not initialize
\tat org.apache.spark.SparkContext.<init>(SparkContext.scala:339)
Caused by: java.lang.reflect.InvocationTargetException
\tat java.base/java.lang.Thread.run(Thread.java:840)
Caused by: java.io.FileNotFoundException: File file:/tmp/spark-events does not exist
\t... 12 more
Caused by: java.lang.NullPointerException
\t... 13 more
"""

NO_WORKER = """\
An error occurred while calling o72.collectToPython.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 4 \
times, most recent failure: Lost task 0.3 in stage 0.0 (TID 3) (127.0.0.1 executor driver): \
org.apache.spark.SparkException:
Error from python worker:
  /usr/bin/python3: No module named pyspark
PYTHONPATH was:
  /opt/spark/python/lib/pyspark.zip
org.apache.spark.SparkException: EOFException occurred while reading the port number
\tat org.apache.spark.api.python.PythonWorkerFactory.create(PythonWorkerFactory.scala:162)

Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:2898)
Caused by: org.apache.spark.SparkException:
Error from python worker:
  /usr/bin/python3: No module named pyspark
\tat org.apache.spark.api.python.PythonWorkerFactory.create(PythonWorkerFactory.scala:162)
"""

IN_WORKER = """\
An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "/opt/spark/worker.py", line 1100, in main
    func, profiler, deserializer, serializer = read_command(pickleSer, infile)
               ^^^^^^^^^^^^^^^^^^^^^^
ModuleNotFoundError: No module named 'verger'
"""

LOST_TASK = (
    "org.apache.spark.SparkException: Job aborted due to stage failure: Task 3 in stage 1.0 failed "
    "4 times, most recent failure: Lost task 3.3 in stage 1.0 (TID 9) (10.0.0.4 executor 2): "
    "java.io.IOException: No space left on device\n\tat x.y(Z.java)"
)

PRINTED = """\
WARNING: Using incubator modules: jdk.incubator.vector
Picked up JAVA_TOOL_OPTIONS: -Dx=y
"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (NESTED, "FileNotFoundException: File file:/tmp/spark-events does not exist"),
        (
            NO_WORKER,
            "SparkException: Error from python worker: /usr/bin/python3: No module named pyspark",
        ),
        (IN_WORKER, "ModuleNotFoundError: No module named 'verger'"),
        (LOST_TASK, "SparkException: java.io.IOException: No space left on device"),
        (
            f'{PRINTED}Exception in thread "main" java.lang.IllegalArgumentException: basedir '
            "must be absolute: ?/.ivy2/local\n\tat org.apache.ivy.util.Checks(Checks.java:48)\n",
            "IllegalArgumentException: basedir must be absolute: ?/.ivy2/local",
        ),
        (
            f"{PRINTED}Unrecognized option: -Xfoo\nError: Could not create the Java Virtual "
            "Machine.\nError: A fatal exception has occurred. Program will exit.",
            "Unrecognized option: -Xfoo",
        ),
        (
            "Error occurred during initialization of VM\nCould not reserve enough space for heap",
            "Could not reserve enough space for heap",
        ),
        (
            f"{PRINTED}12:01:02 ERROR DiskBlockManager: Failed to create any local dir.",
            "Failed to create any local dir.",
        ),
        (
            "ERROR StandaloneSchedulerBackend: x\n12:01:02 ERROR TransportClientFactory: gone\n"
            "java.net.UnknownHostException: nohost.invalid\n\tat java.base/a.b(C.java:1)",
            "UnknownHostException: nohost.invalid",
        ),
        (
            "[PATH_NOT_FOUND] Path does not exist: file:/x.",
            "[PATH_NOT_FOUND] Path does not exist: ",
        ),
        (PRINTED, ""),
        ("", ""),
    ],
)
def test_the_last_cause_that_has_words_is_told(said: str, told: str) -> None:
    """Neither the first line, which says that something failed, nor a bare class is an answer."""
    assert cause_of(said).startswith(told)
    assert bool(cause_of(said)) == bool(told)


def test_an_exception_is_never_without_a_word() -> None:
    """One that says nothing is told by its class; one that only points elsewhere, as it is."""
    assert cause_of(RuntimeError()) == "RuntimeError"
    exited = "[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port number."
    assert cause_of(RuntimeError(exited)) == exited


def test_a_cause_is_one_line_of_bounded_length() -> None:
    """Whatever Java prints, the terminal gets a line that can be read."""
    told = cause_of(f"java.io.IOException: {'x' * 5000}\nmore")
    assert (len(told), told[-4:]) == (400, " ...")
