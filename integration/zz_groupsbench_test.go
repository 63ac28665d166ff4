package integration

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/groups"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestZZGroupsBench(t *testing.T) {
	c := testbed.Kafka(t, testbed.V43, testbed.WithProxy())
	c.CreateTopic("orders", 10, 1)
	cl, err := kafka.Open(spec.Cluster{Alias: "a", BootstrapServers: []string{c.Bootstrap()}}, kafka.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	n := 2000
	sem := make(chan struct{}, 16)
	began := time.Now()
	for i := range n {
		sem <- struct{}{}
		go func() {
			defer func() { <-sem }()
			at := map[kafka.TopicPartition]kafka.Commit{}
			for p := range int32(10) {
				at[kafka.TopicPartition{Topic: "orders", Partition: p}] = kafka.Commit{Offset: int64(i)}
			}
			if refused, err := cl.CommitGroupOffsets(t.Context(), fmt.Sprintf("group-%04d", i), at); err != nil || len(refused) > 0 {
				t.Error(refused, err)
			}
		}()
	}
	for range 16 {
		sem <- struct{}{}
	}
	t.Logf("commits of %d groups: %s", n, time.Since(began))
	all, _ := spec.ParsePatterns(".*")
	f := spec.Flow{Source: "a", Target: "b", Policy: mm2.DefaultPolicy{}, Filters: []spec.Filter{{Topics: all}}, Groups: spec.Groups{State: spec.Running, Include: all}}
	copies := groups.Copies{Flow: f, Cursors: map[kafka.TopicPartition]lease.Cursor{}}
	for p := range int32(10) {
		copies.Cursors[kafka.TopicPartition{Topic: "orders", Partition: p}] = lease.Cursor{Offset: 5000, Target: 5000}
	}
	for round := range 6 {
		before, sent, got, began := cpu(), c.Proxy(0).Bytes(testbed.Requests), c.Proxy(0).Bytes(testbed.Answers), time.Now()
		seen, err := groups.Look(t.Context(), f, cl)
		if err != nil {
			t.Fatal(err)
		}
		looked := time.Since(began)
		positions := copies.Positions(seen)
		digest := copies.Digest(positions)
		t.Logf("round %d: %d groups, %d positions, %s; look %s, all %s, cpu %s (with the proxy), %d bytes sent, %d received", round, len(seen.Groups), len(positions), digest, looked, time.Since(began), cpu()-before, c.Proxy(0).Bytes(testbed.Requests)-sent, c.Proxy(0).Bytes(testbed.Answers)-got)
	}
}
