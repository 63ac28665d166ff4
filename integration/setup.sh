#!/usr/bin/env bash
# Makes a Linux machine that has Go ready for the tests against real brokers: a container engine, then images of NATS,
# Kafka and kferry, and one that judges; and CloudFormation's linter. Each step does nothing where its result is there already. An image is pulled where
# that is possible. Elsewhere, and for Kafka before 3.7, which upstream has no image of, a stand-in of the same name is built from package
# registries, so that the tests are the same.
set -euo pipefail

readonly KAFKA_VERSIONS="4.3.0 3.3.2"
readonly JRE=kferry/jre
readonly UPSTREAM_JRE=eclipse-temurin:17-jre
readonly MAVEN=maven:3-eclipse-temurin-17
readonly JUDGE=kferry/judge
readonly KDC=kferry/kdc
readonly DEBIAN=debian:12-slim
readonly CFN_LINT=1.58.0
readonly JAVA_RELEASE=17 # the oldest that Kafka 4 runs on
readonly PULL_SECONDS=300
readonly ENGINE_SECONDS=30
readonly PROBE_SECONDS=10

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DOCKER_BUILDKIT=0 # the classic builder needs no plugin

main() {
  local version
  engine
  version=$(cd "$root" && go list -m -f '{{.Version}}' github.com/nats-io/nats-server/v2)
  image "nats:${version#v}" nats
  have kferry:test || probe "nats:${version#v}" # what made that image has been here
  for version in $KAFKA_VERSIONS; do
    image "apache/kafka:$version" kafka "$version"
  done
  judge
  kdc
  kferry
  cfn_lint
}

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null; }

# quietly shows a step's output only where the step fails.
quietly() {
  "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; die "failed: $*"; }
}

# engine finds a container engine that answers, or installs and starts one.
engine() {
  if engine_answers; then return; fi
  if ! has docker && ! may_install; then
    die "no docker command: install Docker, or run this as root on Debian or Ubuntu"
  fi
  if grep -qi "permission denied" "$work/engine"; then
    die "no permission to use the container engine: join the group of its socket (docker, as a rule), or run this as root"
  fi
  if [ -n "${DOCKER_HOST:-}" ]; then die "no container engine answers at DOCKER_HOST=$DOCKER_HOST"; fi
  if [ "$(id -u)" != 0 ]; then die "no container engine answers: start it, or run this as root"; fi
  has dockerd || install docker.io iptables
  has docker || install docker-cli # a package of its own from Debian 13 on
  if engine_answers; then return; fi # the package's own service has started it
  start_engine
}

engine_answers() { docker version >"$work/engine" 2>&1; }

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

may_install() { [ "$(id -u)" = 0 ] && has apt-get; }

install() {
  may_install || die "missing: $*. Install it, or run this as root on Debian or Ubuntu"
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  quietly apt-get update
  quietly apt-get install -y --no-install-recommends "$@"
}

# probe sees that this machine reaches what a container on the host's network listens on. All tests rely on it, and it
# is not so where the engine runs in a machine of its own: Docker Desktop, a rootless or a distant engine.
probe() {
  local name="kferry-probe-$$" port=$((20000 + RANDOM % 10000)) deadline=$((SECONDS + PROBE_SECONDS))
  quietly docker run -d --name "$name" --network host "$1" --addr 127.0.0.1 --port "$port" --name "$name"
  until greets "$port" "$name"; do
    if [ $SECONDS -ge $deadline ]; then
      quietly docker rm -f -v "$name"
      die "containers are not on this machine's network (Docker Desktop, rootless, another host?): the tests need an engine that runs here as root"
    fi
    sleep 0.1
  done
  quietly docker rm -f -v "$name"
}

# greets PORT NAME: whether the NATS server of that name greets whoever connects.
greets() {
  timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && read -r line <&3 && [[ $line == *"$2"* ]]' greets "$@" 2>/dev/null
}

# image NAME KIND [ARG]: has an image of that name, from here, from upstream or built by KIND out of images/KIND.
image() {
  local name=$1 kind=$2 recipe
  shift
  recipe=$(cat "$root/integration/images/$kind"/* | digest)
  if have "$name"; then
    case $(made_by "$name") in "" | "$recipe") return ;; esac
  elif pull "$name"; then
    return
  fi
  local context="$work/${name//[\/:]/-}"
  cp -r "$root/integration/images/$kind" "$context"
  say "building $name"
  "$@" "$context"
  build "$name" "$recipe" "$context"
}

have() { docker image inspect "$1" >/dev/null 2>&1; }
pull() { have "$1" || timeout "$PULL_SECONDS" docker pull -q "$1" >/dev/null 2>&1; }
digest() { sha256sum | cut -c1-16; }

# made_by is the digest of what an image was built from; upstream's say nothing.
made_by() { docker image inspect -f '{{index .Config.Labels "kferry.recipe"}}' "$1" 2>/dev/null; }

# build NAME RECIPE CONTEXT [OPTION…] replaces an image.
build() {
  quietly docker build --label "kferry.recipe=$2" -t "$1" "${@:4}" "$3"
  quietly docker image prune -f --filter label=kferry.recipe # the one that had the name
}

kafka() {
  local version=$1 context=$2
  have "$JRE" || jre
  jars "$context" -Dkafka.version="$version"
}

# jre has an image with Java: upstream's, or one made from the system's own package mirror.
jre() {
  if pull "$UPSTREAM_JRE"; then
    docker tag "$UPSTREAM_JRE" "$JRE"
    return
  fi
  may_install || die "cannot pull $UPSTREAM_JRE, and only root on Debian or Ubuntu can do without"
  install debootstrap
  local ID VERSION_CODENAME java=openjdk-17-jre-headless components=main mirror
  . /etc/os-release
  if [ "$ID" = ubuntu ]; then components=main,universe; fi
  [ -n "$(apt-cache madison "$java")" ] || java=openjdk-21-jre-headless # Debian 13 has no 17
  mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk -v id="$ID" -v codename="$VERSION_CODENAME" 'tolower($1) == id && $2 == codename && !uri { uri = $3 } END { print uri }')
  quietly debootstrap --variant=minbase --include="$java,ca-certificates" --components="$components" \
    "$VERSION_CODENAME" "$work/jre" "$mirror"
  rm -rf "$work"/jre/var/cache/apt/* "$work"/jre/var/lib/apt/lists/*
  tar -C "$work/jre" -c . | docker import - "$JRE" >/dev/null
}

# jars CONTEXT ARG lays Kafka and all that it needs beside the pom, by this machine's Maven or by one in a container.
jars() {
  local context=$1
  set -- -q -B dependency:copy-dependencies -DexcludeArtifactIds=slf4j-reload4j -DoutputDirectory=libs "$2"
  if ! has mvn && ! may_install && pull "$MAVEN"; then
    quietly contained_maven "$context" "$@"
    return
  fi
  has mvn || install maven
  quietly mvn -f "$context/pom.xml" "$@"
}

# contained_maven shares no folder with its container: the pom goes in and the jars come out.
contained_maven() {
  local context=$1
  shift
  docker run --rm -i -w /tmp "$MAVEN" sh -c 'cat >pom.xml && mvn "$@" >&2 && tar -c libs' mvn "$@" <"$context/pom.xml" |
    tar -x -C "$context"
}

nats() {
  (cd "$root" && CGO_ENABLED=0 go build -trimpath -o "$1/nats-server" github.com/nats-io/nats-server/v2)
}

# judge has an image with Java programs that tests compare kferry's answers with: images/judge on top of Kafka's image.
judge() {
  local context="$work/judge" base recipe
  base=$(sed -n 's/^FROM //p' "$root/integration/images/judge/Dockerfile")
  recipe=$({ cat "$root/integration/images/judge"/*; docker image inspect -f '{{.Id}}' "$base"; } | digest)
  if have "$JUDGE" && [ "$(made_by "$JUDGE")" = "$recipe" ]; then return; fi
  cp -r "$root/integration/images/judge" "$context"
  say "building $JUDGE"
  libs_of "$base" "$context"
  classes "$context"
  rm -r "$context/libs"
  build "$JUDGE" "$recipe" "$context"
}

# libs_of IMAGE CONTEXT copies Kafka's jars out of its image.
libs_of() {
  local container
  container=$(docker create "$1")
  quietly docker cp "$container:/opt/kafka/libs" "$2/libs"
  quietly docker rm -v "$container"
}

# classes CONTEXT compiles its Java programs, by this machine's javac or by one in a container.
classes() {
  local context=$1
  set -- -nowarn --release "$JAVA_RELEASE" -cp 'libs/*' -d classes
  if ! has javac && ! may_install && pull "$MAVEN"; then
    quietly contained_javac "$context" "$@"
    return
  fi
  has javac || install default-jdk-headless
  (cd "$context" && quietly javac "$@" ./*.java)
}

# contained_javac shares no folder with its container: the sources and jars go in and the classes come out.
contained_javac() {
  local context=$1
  shift
  tar -C "$context" -c . |
    docker run --rm -i -w /tmp "$MAVEN" sh -c 'tar -x && javac "$@" ./*.java >&2 && tar -c classes' javac "$@" |
    tar -x -C "$context"
}

# kdc has an image with a Kerberos KDC.
kdc() {
  local context="$work/kdc" recipe
  recipe=$({ cat "$root/integration/images/kdc"/*; declare -f kdc system_of; } | digest)
  if have "$KDC" && [ "$(made_by "$KDC")" = "$recipe" ]; then return; fi
  cp -r "$root/integration/images/kdc" "$context"
  say "building $KDC"
  packages "$context" krb5-kdc krb5-admin-server
  build "$KDC" "$recipe" "$context"
}

# packages CONTEXT NAME… lays a system of just these packages of Debian or Ubuntu out in root, by this machine's apt or by one in a
# container.
packages() {
  local context=$1 script
  shift
  script="set -euo pipefail; $(declare -f system_of); system_of $*"
  if has apt-get && has dpkg-deb; then
    if may_install; then quietly apt-get update; fi
    (cd "$context" && quietly bash -c "$script")
    return
  fi
  pull "$DEBIAN" || die "no apt-get here, and cannot pull $DEBIAN"
  quietly contained_packages "$context" "$script"
}

# contained_packages shares no folder with its container: what the script makes in it comes out.
contained_packages() {
  docker run --rm -w /made "$DEBIAN" bash -c 'apt-get update >&2 && bash -c "$1" >&2 && tar -c root' packages "$2" | tar -x -C "$1"
}

# system_of NAME… unpacks packages, the libraries that they need and a busybox into the folder root.
system_of() {
  local before="" all="libc6 busybox-static $*" folder deb name
  while [ "$all" != "$before" ]; do # until no library needs another
    before=$all
    all=$({ tr ' ' '\n' <<<"$all"; apt-cache depends --important $all | awk '
      /Depends:/ { if (!other && $NF ~ /^lib/) print $NF; other = /\|/ } # the first of alternatives
    '; } | sort -u | xargs)
  done
  mkdir -p debs root/usr/bin root/usr/sbin root/usr/lib root/usr/lib64
  for folder in bin sbin lib lib64; do ln -s "usr/$folder" "root/$folder"; done # as any newer system has them
  (cd debs && apt-get -qq download $all)
  for deb in debs/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C root; done
  rm -rf debs root/usr/share root/usr/lib/*/gconv root/usr/lib/systemd
  for name in sh cat mkdir rm base64; do [ -e "root/usr/bin/$name" ] || ln -s busybox "root/usr/bin/$name"; done
}

# kferry builds the image under test from the tree as it is.
kferry() {
  local context="$work/kferry" recipe
  mkdir -p "$context/data"
  (cd "$root" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags="-s -w -X github.com/kferry/kferry/shared/cli.built=test" -o "$context/kferry" .)
  cp "$root/deploy/Dockerfile" "$context"
  recipe=$(cat "$context/Dockerfile" "$context/kferry" | digest)
  [ "$(made_by kferry:test)" = "$recipe" ] || build kferry:test "$recipe" "$context" --target prebuilt
}

# cfn_lint has CloudFormation's linter, from here or in an environment of its own.
cfn_lint() {
  local to="$root/build/cfn-lint"
  if has cfn-lint || "$to/bin/cfn-lint" --version 2>/dev/null | grep -qF "$CFN_LINT"; then return; fi
  if ! python3 -c 'import ensurepip' 2>/dev/null; then install python3-venv; fi
  quietly python3 -m venv --clear "$to"
  quietly "$to/bin/pip" install -q "cfn-lint==$CFN_LINT"
}

main
