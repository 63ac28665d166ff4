# Runs a program of the judge's; what it writes to standard error is for people.
set -eu
[ -e /tmp/input ] || : >/tmp/input
exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
  -cp '/judge:/opt/kafka/libs/*' "$@" </tmp/input >/tmp/output
