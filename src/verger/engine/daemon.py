"""The process that Spark forks Python workers from, with what they need loaded before.

Spark's own loads little more than Python, and every worker then loads numpy, Arrow and Verger for
itself. Sessions that Verger starts name this module in ``spark.python.daemon.module``. The
runtime of the model is not loaded here: it starts a thread, which a fork would lose.
"""

from __future__ import annotations

import gc

import pyarrow.parquet  # noqa: F401
import pyspark.worker  # noqa: F401
from pyspark import daemon

import verger.features.featurize  # noqa: F401

if __name__ == "__main__":
    gc.freeze()  # a collection in a worker would copy the pages that it shares with the others
    daemon.manager()
