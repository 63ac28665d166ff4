// Package integration tests kferry against real brokers, in containers.
package integration

import (
	"testing"

	"github.com/kferry/kferry/integration/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

func TestIsolationLevels(t *testing.T) {
	for _, version := range []string{testbed.V43, testbed.V33} {
		c := testbed.Shared(t, version)
		c.CreateTopic("transactions", 2, 1)
		testbed.Produce(t, c, "transactions", testbed.Load{Records: 1000, TxnRecords: 100, AbortEvery: 2})
		if got := testbed.Read(t, c, "transactions", testbed.Committed).Records(); got != 500 {
			t.Errorf("%s: %d committed records, want 500", version, got)
		}
		if got := testbed.Read(t, c, "transactions", testbed.Uncommitted).Records(); got != 1000 {
			t.Errorf("%s: %d records in all, want 1000", version, got)
		}
	}
}
