#!/usr/bin/env bash
# Fetch hadoop-aws and what it needs, of the Hadoop that pyspark carries: hadoop_aws.sh PYTHON FOLDER
set -euo pipefail
python=$1 folder=$2
[ -f "$folder/.complete" ] && exit
version=$("$python" -c '
import pathlib, pyspark
jar = next(pathlib.Path(pyspark.__path__[0], "jars").glob("hadoop-client-api-*.jar"))
print(jar.stem.removeprefix("hadoop-client-api-"))')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>verger</groupId><artifactId>bench</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.hadoop</groupId><artifactId>hadoop-aws</artifactId>
      <version>$version</version>
    </dependency>
  </dependencies>
</project>
POM
mkdir -p "$folder"
mvn --quiet --batch-mode --file "$work/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$(cd "$folder" && pwd)"
touch "$folder/.complete"
