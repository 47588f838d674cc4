# Verger with Spark, for one machine and for Kubernetes. In a checkout:
#
#   docker build -t verger .
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/data" verger verger run /data/photos /data/result
#
# On Kubernetes: docs/cluster.md. Spark's version is that of pyspark in constraints.txt.
ARG SPARK=4.3.0
FROM apache/spark:${SPARK}-scala2.13-java17-ubuntu AS spark

FROM python:3.11-slim-bookworm
# Versions of Debian that are replaced vanish from its mirrors: none is pinned.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends default-jre-headless make tini && \
    rm -rf /var/lib/apt/lists/*
# Spark, and what starts a driver or an executor in a pod; any other command is run as it is.
COPY --from=spark /opt/spark /opt/spark
COPY --from=spark /opt/entrypoint.sh /opt/entrypoint.sh
WORKDIR /opt/source
COPY Makefile pyproject.toml requirements.txt README.md LICENSE ./
COPY src src
# Every package is checked by its hash. Of pyspark the image has the jars already.
RUN make install VENV=/opt/verger && \
    rm -rf /opt/verger/lib/python3.11/site-packages/pyspark/jars && \
    printf 'from verger.cli import main\n\nmain()\n' > /opt/verger/main.py
ENV SPARK_HOME=/opt/spark \
    JAVA_HOME=/usr/lib/jvm/default-java \
    PATH=/opt/verger/bin:/opt/spark/bin:$PATH \
    PYSPARK_PYTHON=/opt/verger/bin/python \
    PYSPARK_DRIVER_PYTHON=/opt/verger/bin/python
WORKDIR /opt/spark/work-dir
# The user of Spark's own images.
USER 185
ENTRYPOINT ["/opt/entrypoint.sh"]
CMD ["verger", "--help"]
