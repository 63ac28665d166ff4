#!/usr/bin/env bash
# Makes a Linux machine that has Go ready for the tests against real brokers: a container engine, then images of Kafka,
# NATS and kferry. Each step does nothing where its result is there already. An image is pulled where that is
# possible; elsewhere a stand-in of the same name is built from package registries, so that the tests are the same.
set -euo pipefail

readonly KAFKA_VERSIONS="4.3.0 3.3.2"
readonly PULL_SECONDS=60
readonly ENGINE_SECONDS=30

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DOCKER_BUILDKIT=0 # the classic builder comes with every engine

main() {
  engine
  for version in $KAFKA_VERSIONS; do
    image "apache/kafka:$version" kafka "$version"
  done
  nats_version=$(cd "$root" && go list -m -f '{{.Version}}' github.com/nats-io/nats-server/v2)
  image "nats:${nats_version#v}" nats
  kferry
}

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

# quietly shows a step's output only where the step fails.
quietly() {
  "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; die "failed: $*"; }
}

# engine finds a container engine that answers, or installs and starts one.
engine() {
  if engine_answers; then return; fi
  if ! command -v dockerd >/dev/null; then
    if ! may_install; then
      die "no container engine answers: start one, or run this as root on Debian or Ubuntu to have docker.io installed"
    fi
    install docker.io iptables
  fi
  if engine_answers; then return; fi # the package's own service has started it
  [ "$(id -u)" = 0 ] || die "the container engine is not running: start it, or run this as root"
  start_engine
}

engine_answers() { docker version >/dev/null 2>&1; }

may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

install() {
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  quietly apt-get update
  quietly apt-get install -y --no-install-recommends "$@"
}

start_engine() {
  local log="${TMPDIR:-/tmp}/kferry-dockerd.log" deadline=$((SECONDS + ENGINE_SECONDS))
  say "starting dockerd, log in $log"
  setsid nohup dockerd >"$log" 2>&1 </dev/null &
  local pid=$!
  until engine_answers; do
    kill -0 "$pid" 2>/dev/null || die "dockerd ended: $(tail -n 1 "$log")"
    [ $SECONDS -lt $deadline ] || die "dockerd does not answer within $ENGINE_SECONDS s: $(tail -n 1 "$log")"
    sleep 0.2
  done
}

# image NAME KIND [ARG]: has an image of that name, from here, from upstream or built by KIND out of images/KIND. A
# stand-in carries the digest of its recipe and is built again when that has changed.
image() {
  local name=$1 kind=$2 recipe have
  shift
  recipe=$(cat "$root/integration/images/$kind"/* | sha256sum | cut -c1-16)
  if have=$(docker image inspect -f '{{index .Config.Labels "kferry.recipe"}}' "$name" 2>/dev/null); then
    if [ -z "$have" ] || [ "$have" = "$recipe" ]; then return; fi
  elif timeout "$PULL_SECONDS" docker pull -q "$name" >/dev/null 2>&1; then
    return
  fi
  say "building $name"
  local context="$work/${name//[\/:]/-}"
  cp -r "$root/integration/images/$kind" "$context"
  "$@" "$context"
  quietly docker build --label "kferry.recipe=$recipe" -t "$name" "$context"
}

kafka() {
  local version=$1 context=$2
  if ! docker image inspect kferry/jre:17 >/dev/null 2>&1; then jre kferry/jre:17; fi
  command -v mvn >/dev/null || install maven
  quietly mvn -q -B -f "$context/pom.xml" dependency:copy-dependencies \
    -Dkafka.version="$version" -DexcludeArtifactIds=slf4j-reload4j -DoutputDirectory="$context/libs"
}

# jre makes a root file system with Java from the system's own package mirror.
jre() {
  may_install || die "$1 can only be built by root on Debian or Ubuntu: pull apache/kafka where that is possible"
  command -v debootstrap >/dev/null || install debootstrap
  local ID VERSION_CODENAME components=main mirror
  . /etc/os-release
  if [ "$ID" = ubuntu ]; then components=main,universe; fi
  quietly apt-get update
  mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk -v id="$ID" -v codename="$VERSION_CODENAME" 'tolower($1) == id && $2 == codename && !uri { uri = $3 } END { print uri }')
  quietly debootstrap --variant=minbase --include=openjdk-17-jre-headless,ca-certificates --components="$components" \
    "$VERSION_CODENAME" "$work/jre" "$mirror"
  rm -rf "$work"/jre/var/cache/apt/* "$work"/jre/var/lib/apt/lists/*
  tar -C "$work/jre" -c . | docker import - "$1" >/dev/null
}

nats() {
  (cd "$root" && CGO_ENABLED=0 go build -trimpath -o "$1/nats-server" github.com/nats-io/nats-server/v2)
}

# kferry builds the image under test from the tree as it is; Go's cache and the builder's make an unchanged one cheap.
kferry() {
  mkdir -p "$work/kferry/data"
  (cd "$root" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/kferry/kferry" .)
  cp "$root/deploy/Dockerfile" "$work/kferry"
  quietly docker build -t kferry:test "$work/kferry"
}

main
