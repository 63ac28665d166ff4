package coordinator_test

import (
	"testing"
	"time"
)

// TestMirrorMaker holds scenarios of MirrorMaker's own tests, under their names there.
func TestMirrorMaker(t *testing.T) {
	// A copy is asked for until it is there, and then no more.
	t.Run("MirrorSourceConnectorTest.testRefreshTopicPartitions", func(t *testing.T) {
		bubble(t, func(in *installation) {
			in.create("A", "orders", 2, 0)
			in.run()
			for range 3 {
				in.release(in.expect(70*time.Second, "topics A->B orders")...)
			}
			in.create("B", "A.orders", 2, 0)
			in.release(in.claim(10 * time.Second)...) // what was offered before
			in.silent(time.Minute)
		})
	})
	// A topic of the target's alone is nobody's copy.
	t.Run("MirrorSourceConnectorTest.testRefreshTopicPartitionsTopicOnTargetFirst", func(t *testing.T) {
		bubble(t, func(in *installation) {
			in.create("B", "A.orders", 1, 3)
			in.run()
			in.silent(30 * time.Second)
			in.create("A", "orders", 2, 0)
			in.expect(10*time.Second, "topics A->B orders") // since it has one partition too few
		})
	})
}
