"""Which engine runs the tasks: Spark where it is asked for, else processes on this machine."""

from __future__ import annotations

import sys

from verger.config import Config
from verger.engine.local import LocalEngine
from verger.engine.scratch import sweep_scratch, temporary_folder
from verger.engine.tasks import LOG_WAIT, Engine, OnWait
from verger.errors import EnvironmentNotReadyError


def wants_spark(config: Config) -> bool:
    """Whether Spark is to run the tasks.

    It is where a session is active, where ``spark-submit`` has started this process, and where
    an option or ``spark-defaults.conf`` asks for what only Spark has.
    """
    if config.master or config.conf or config.ui or config.legacy_parquet:
        return True
    if config.reader == "spark" or has_active_session():
        return True
    from verger.engine.session import configured_master, is_submitted

    return is_submitted() or configured_master() is not None


def has_active_session() -> bool:
    """Whether this process has a SparkSession; loads nothing to find out."""
    if "pyspark.sql" not in sys.modules:
        return False
    from pyspark.sql import SparkSession

    return SparkSession.getActiveSession() is not None


def check_session() -> None:
    """Refuse an active session that runs no tasks, before anything is listed.

    Raises
    ------
    EnvironmentNotReadyError
        If it is one of Spark Connect.
    """
    if has_active_session():
        from pyspark.sql import SparkSession

        from verger.engine.session import check_is_classic

        check_is_classic(SparkSession.getActiveSession())


def check_engine(config: Config) -> None:
    """Find out whether the engine could be started, without starting it.

    Raises
    ------
    EnvironmentNotReadyError
        If file names are not read as UTF-8 or no temporary file can be written; if Spark is asked
        for, and there is no Java that fits or a variable stands in its way.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise EnvironmentNotReadyError(
            f"Python reads file names as {encoding} here, and photos' names may be of any "
            "language: set PYTHONUTF8=1"
        )
    temporary_folder()
    if wants_spark(config):
        from verger.engine.session import check_environment

        check_environment(config)


def start_engine(config: Config, on_wait: OnWait = LOG_WAIT) -> Engine:
    """Return the engine that runs the tasks; starts Spark if it is wanted and not active.

    Removes the temporary files of runs that have been killed.

    Parameters
    ----------
    config : Config
    on_wait : callable, optional
        Told if a cluster has no room.

    Raises
    ------
    EnvironmentNotReadyError
        If Spark does not start.
    """
    sweep_scratch()
    if not wants_spark(config):
        return LocalEngine(config.workers)
    from verger.engine.session import get_session
    from verger.engine.spark import SparkEngine

    return SparkEngine(get_session(config, on_wait=on_wait), on_wait)
