package mm2_test

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/kferry/kferry/shared/mm2"
)

// TestRecords compares with records that MirrorMaker 2 4.3.1 wrote.
func TestRecords(t *testing.T) {
	sync := mm2.OffsetSync{Topic: "rawbig", Partition: 3, Upstream: 101, Downstream: 101}
	checkpoint := mm2.Checkpoint{Group: "app-2", Topic: "A.orders", Partition: 1, Upstream: 60, Downstream: 1}
	noted := mm2.Checkpoint{Group: "app-2", Topic: "A.orders", Partition: 1, Upstream: 60, Downstream: 1, Metadata: "meta-é"}
	heartbeat := mm2.Heartbeat{Source: "A", Target: "B", Timestamp: 0x1a20aa2ac95}
	for _, test := range []struct {
		what              string
		key, value        []byte
		wantKey, wantHead string
		again             func(key, value []byte) (any, error)
		is                any
	}{
		{"offset-sync", sync.Key(), sync.Value(), "000672617762696700000003", "00000000000000650000000000000065",
			func(k, v []byte) (any, error) { return mm2.ParseOffsetSync(k, v) }, sync},
		{"checkpoint", checkpoint.Key(), checkpoint.Value(), "00056170702d320008412e6f726465727300000001", "0000000000000000003c00000000000000010000",
			func(k, v []byte) (any, error) { return mm2.ParseCheckpoint(k, v) }, checkpoint},
		{"checkpoint with metadata", noted.Key(), noted.Value(), "00056170702d320008412e6f726465727300000001", "0000000000000000003c000000000000000100076d6574612dc3a9",
			func(k, v []byte) (any, error) { return mm2.ParseCheckpoint(k, v) }, noted},
		{"heartbeat", heartbeat.Key(), heartbeat.Value(), "000141000142", "0000000001a20aa2ac95",
			func(k, v []byte) (any, error) { return mm2.ParseHeartbeat(k, v) }, heartbeat},
	} {
		if got := hex.EncodeToString(test.key); got != test.wantKey {
			t.Errorf("%s: key %s, want %s", test.what, got, test.wantKey)
		}
		if got := hex.EncodeToString(test.value); got != test.wantHead {
			t.Errorf("%s: value %s, want %s", test.what, got, test.wantHead)
		}
		if got, err := test.again(test.key, test.value); err != nil || got != test.is {
			t.Errorf("%s comes back as %v, %v", test.what, got, err)
		}
		for i := range test.value {
			if _, err := test.again(test.key, test.value[:i]); !errors.Is(err, mm2.ErrRecord) {
				t.Errorf("%s: %d bytes of its value were taken: %v", test.what, i, err)
			}
		}
		for i := range test.key {
			if _, err := test.again(test.key[:i], test.value); !errors.Is(err, mm2.ErrRecord) {
				t.Errorf("%s: %d bytes of its key were taken: %v", test.what, i, err)
			}
		}
		if _, err := test.again(test.key, append(test.value, 0)); !errors.Is(err, mm2.ErrRecord) {
			t.Errorf("%s: a byte too many was taken: %v", test.what, err)
		}
	}
}

func TestRecordsOfAnotherVersion(t *testing.T) {
	key, value := mm2.Heartbeat{Source: "A", Target: "B"}.Key(), mm2.Heartbeat{}.Value()
	value[1] = 1
	if _, err := mm2.ParseHeartbeat(key, value); !errors.Is(err, mm2.ErrRecord) {
		t.Errorf("heartbeat of version 1: %v", err)
	}
	c := mm2.Checkpoint{Group: "g", Topic: "t"}
	value = c.Value()
	value[1] = 1
	if _, err := mm2.ParseCheckpoint(c.Key(), value); !errors.Is(err, mm2.ErrRecord) {
		t.Errorf("checkpoint of version 1: %v", err)
	}
}

func TestInternalNames(t *testing.T) {
	for got, want := range map[string]string{
		mm2.OffsetSyncsTopic(".", "B"): "mm2-offset-syncs.B.internal",
		mm2.OffsetSyncsTopic("_", "B"): "mm2-offset-syncs_B_internal",
		mm2.CheckpointsTopic(".", "A"): "A.checkpoints.internal",
		mm2.CheckpointsTopic("-", "A"): "A-checkpoints-internal",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
