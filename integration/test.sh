#!/usr/bin/env bash
# Runs every test there is, those against real brokers included, on a machine that has Go.
set -euo pipefail
cd "$(dirname "$0")/.."

bash integration/setup.sh

export KFERRY_INTEGRATION=1 # without it the tests that need containers leave themselves out

go vet ./...
# One package at a time: brokers need the processor for themselves when tests look at time.
go test -p 1 -timeout 40m ./...
