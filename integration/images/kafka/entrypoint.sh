#!/bin/sh
# Writes KAFKA_FOO_BAR=x as foo.bar=x, formats the log directory on the first start, and becomes the broker.
# Names follow apache/kafka: "_" is a dot, "__" an underscore, "___" a dash.
set -eu

config=/tmp/server.properties
env | awk -F= '
  /^KAFKA_(OPTS|HEAP_OPTS)=/ { next }
  /^KAFKA_/ {
    name = tolower(substr($1, 7))
    gsub(/___/, "-", name); gsub(/__/, "#", name); gsub(/_/, ".", name); gsub(/#/, "_", name)
    print name "=" substr($0, length($1) + 2)
  }' >"$config"

CLASSPATH=$(printf '%s:' /opt/kafka/libs/*.jar) # in the order that the archive was made with
export CLASSPATH
archive=/opt/kafka/kafka.jsa shared=
if [ -e "$archive" ]; then shared=-XX:SharedArchiveFile=$archive; fi
log=-Dorg.slf4j.simpleLogger
log="$log.defaultLogLevel=warn $log.showDateTime=true $log.dateTimeFormat=HH:mm:ss.SSS"

# shellcheck disable=SC2086 # options are words
if ! [ -e "${KAFKA_LOG_DIRS:?}/meta.properties" ]; then
  java $log $shared -XX:TieredStopAtLevel=1 -XX:+UseSerialGC kafka.tools.StorageTool format -t "${CLUSTER_ID:?}" -c "$config"
fi
# shellcheck disable=SC2086
exec java $log $shared -XX:+UseSerialGC ${KAFKA_HEAP_OPTS:--Xmx512m} ${KAFKA_OPTS:-} kafka.Kafka "$config"
