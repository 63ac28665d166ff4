package kafka_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/shared/kafka"
)

func TestRefusalsNameTheRight(t *testing.T) {
	inBubble(t, setup{}, func(w *world) {
		deny := func(key kmsg.Key, err *kerr.Error) {
			w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: 1})
		}
		for _, c := range []struct {
			key  kmsg.Key
			err  *kerr.Error
			call func() error
			says string
		}{
			{kmsg.CreateTopics, kerr.TopicAuthorizationFailed, func() error {
				return w.cluster.CreateTopic(w.ctx, kafka.NewTopic{Name: "new", Partitions: 1, ReplicationFactor: 1})
			}, "User:ANONYMOUS lacks Create on topic new of"},
			{kmsg.DescribeACLs, kerr.ClusterAuthorizationFailed, func() error { _, err := w.cluster.DescribeACLs(w.ctx, ""); return err },
				"User:ANONYMOUS lacks Describe on cluster"},
			{kmsg.DescribeGroups, kerr.GroupAuthorizationFailed, func() error { _, err := w.cluster.Members(w.ctx, "connect"); return err },
				"User:ANONYMOUS lacks Describe on group connect of"},
		} {
			deny(c.key, c.err)
			err := c.call()
			if err == nil || !strings.Contains(err.Error(), c.says) || !kafka.Denied(err) || !errors.Is(err, error(c.err)) {
				w.Errorf("%v, want %s", err, c.says)
			}
			if err != nil && !strings.Contains(err.Error(), "kafka-acls.sh --bootstrap-server ") {
				w.Errorf("%v doesn't say how to grant it", err)
			}
		}
	})
}
