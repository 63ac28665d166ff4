#!/usr/bin/env bash
# Runs each fuzz target for FUZZTIME, as go test's -fuzztime has it: by coverage, or, where BLIND is set, by chance from the seeds, which takes
# no build of every dependency anew.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly FUZZTIME=${FUZZTIME:-10s}
binaries=$(mktemp -d)
trap 'rm -rf "$binaries"' EXIT

packages=$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u)
if [ -n "${BLIND:-}" ]; then
  go test -c -o "$binaries/" $packages
fi
for package in $packages; do
  for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$package"/*_test.go); do
    echo "$package $target"
    if [ -n "${BLIND:-}" ]; then
      (cd "$package" && "$binaries/$(basename "$package").test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$FUZZTIME" -test.fuzzminimizetime 1s -test.fuzzcachedir "$binaries/cache")
    else
      go test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 1s "$package"
    fi
  done
done
