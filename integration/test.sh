#!/usr/bin/env bash
# Runs every test there is, those against real brokers included, on a machine that has Go.
set -euo pipefail
cd "$(dirname "$0")/.."

# What it sets up is downloaded for the most part, and the packages that need none of it have time until then.
bash integration/setup.sh &
setup=$!
trap 'kill $setup 2>/dev/null || true' EXIT

go vet ./...
go test -p 1 $(go list ./... | grep -v '/integration$')
(cd deploy/check && go vet .)
BLIND=1 FUZZTIME=5000x bash integration/fuzz.sh
wait $setup
(cd deploy/check && go test .)
# Without it the tests that need containers leave themselves out. They come alone, three at a time where they allow it, whatever the number of
# processors: they wait for the most part.
KFERRY_INTEGRATION=1 go test -timeout 40m -parallel 3 ./integration
