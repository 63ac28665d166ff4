# Starts a broker and stops it, which leaves the classes that it loads in an archive: with that, as upstream's image has one, a start costs less
# than half.
set -euo pipefail

readonly PORT=9092
readonly ANSWERS_SECONDS=180
export CLUSTER_ID=AAAAAAAAAAAAAAAAAAAAAA
export KAFKA_LOG_DIRS=/tmp/archived KAFKA_NODE_ID=0 KAFKA_PROCESS_ROLES=broker,controller
export KAFKA_LISTENERS="PLAINTEXT://127.0.0.1:$PORT,CONTROLLER://127.0.0.1:9093"
export KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER KAFKA_CONTROLLER_QUORUM_VOTERS=0@127.0.0.1:9093
export KAFKA_OPTS=-XX:ArchiveClassesAtExit=/opt/kafka/kafka.jsa

/entrypoint.sh &
broker=$!
until (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do
  kill -0 $broker || exit 1
  [ $SECONDS -lt $ANSWERS_SECONDS ] || exit 1
  sleep 0.2
done
kill $broker
wait $broker || true # a JVM that was told to end says so
[ -e /opt/kafka/kafka.jsa ]
rm -r "$KAFKA_LOG_DIRS"
