package lease_test

import (
	"testing"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
)

// MirrorMaker had gone on from a cursor that the queue still has, and kferry from there. What MirrorMaker had left is not put over that.
func TestWhatMirrorMakerLeftIsTakenUpOnce(t *testing.T) {
	bubble(t, func(t *testing.T, env *local.Env) {
		q, _ := worker(t, env)
		c := cursors(t, env, q)
		load(t, c)
		begun := lease.Cursor{Version: 1, Offset: 3, Target: 9, SourceTopicID: "s", TargetTopicID: "t", SourceEpoch: -1, Timestamp: -1}
		create(t, c, begun)
		key := flow().Key("orders", 0)
		record := kafka.Record{Partition: mm2.OffsetsPartition(key, mm2.OffsetsPartitions), Key: key, Value: []byte(`{"offset":99}`)}
		if err := open(t, env).Write(t.Context(), flow().OffsetsTopic, []kafka.Record{record}); err != nil {
			t.Fatal(err)
		}
		theirs, revision := get(t, c)
		if !theirs.Foreign || theirs.Offset != 100 {
			t.Fatalf("MirrorMaker went on to 100, the cursor is %+v", theirs)
		}
		begun.Offset, begun.Epoch = 120, 1
		commit(t, c, begun, revision)
		time.Sleep(time.Second)
		if ours, _ := get(t, c); ours.Foreign || ours.Offset != 120 {
			t.Errorf("kferry went on to 120, the cursor is %+v", ours)
		}
	})
}
