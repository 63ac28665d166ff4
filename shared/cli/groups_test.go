package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/local"
)

// commit commits a position in partition 0 of a topic for a group without members.
func commit(t *testing.T, env *local.Env, alias, group, topic string, offset int64) {
	t.Helper()
	c, err := kafka.Open(env.Spec(alias), kafka.Options{Budget: kafka.NewBudget(1 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := map[kafka.TopicPartition]kafka.Commit{{Topic: topic}: {Offset: offset}}
	if refused, err := c.CommitGroupOffsets(t.Context(), group, at); err != nil || len(refused) > 0 {
		t.Fatalf("commit for %s: %v, %v", group, refused, err)
	}
}

// join has a member in a group until the test ends.
func join(t *testing.T, env *local.Env, alias, group, topic string) {
	t.Helper()
	joined := make(chan struct{}, 1)
	client, err := env.Client(alias, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { joined <- struct{}{} }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	<-joined
}

// Every group and partition that isn't followed, or not exactly, or not set on the target, has its reason.
func TestGroupsHaveReasons(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 300)
	environ = append(environ, "KFERRY_SYNC_GROUP_OFFSETS=true")
	if err := env.Kafka(source).CreateTopic("others", 1, nil); err != nil {
		t.Fatal(err)
	}
	commit(t, env, source, "early", "orders", 5) // is led on before the run ends
	if code, _, err := kferry(t, environ, "run", "--until-caught-up"); code != 0 {
		t.Fatalf("exit code %d and\n%s", code, err)
	}
	end := env.Kafka(source).PartitionInfo("orders", 0).HighWatermark
	copied := source + ".orders"
	commit(t, env, source, "fresh", "orders", 7)
	commit(t, env, source, "ahead", "orders", 7)
	commit(t, env, target, "ahead", copied, 9)
	commit(t, env, source, "busy", "orders", 7)
	commit(t, env, target, "busy", copied, 3)
	join(t, env, target, "busy", copied)
	commit(t, env, source, "fast", "orders", end)
	write(t, env, 30) // which nobody copies any more
	commit(t, env, source, "faster", "orders", end+1)
	commit(t, env, source, "elsewhere", "others", 0)
	commit(t, env, source, "connect-sink", "orders", 7)
	code, out, _ := kferry(t, environ, "groups", "-o", "json")
	var surveys []struct {
		Flow      string
		Positions []struct {
			Group, Reason string
			Exact         bool
			Position      *int64 `json:"source_position"`
			Translated    *int64 `json:"translated_position"`
			Own           *int64 `json:"target_position"`
		}
	}
	if err := json.Unmarshal([]byte(out), &surveys); err != nil || code != 0 || len(surveys) != 1 || surveys[0].Flow != flow {
		t.Fatalf("exit code %d, %v and\n%s", code, err, out)
	}
	number := func(n *int64) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	got := map[string]string{}
	for _, p := range surveys[0].Positions {
		got[p.Group] = fmt.Sprintf("%s %s %s %v %s", number(p.Position), number(p.Translated), number(p.Own), p.Exact, p.Reason)
	}
	for group, want := range map[string]string{
		"early":        "5 5 5 true ",
		"fresh":        "7 7 - true ",
		"ahead":        "7 7 9 true target_ahead",
		"busy":         "7 7 3 true active_on_target",
		"fast":         fmt.Sprintf("%d %[1]d - true ", end),
		"faster":       fmt.Sprintf("%d %d - false copy_behind", end+1, end),
		"elsewhere":    "0 - - false topic_not_copied",
		"connect-sink": "- - - false filtered",
	} {
		if got[group] != want {
			t.Errorf("%s is %q, want %q", group, got[group], want)
		}
	}
	if code, _, said := kferry(t, environ, "groups", flow, "--group", "fastest"); code != 0 || !strings.Contains(said, `lists no group "fastest"`) {
		t.Errorf("of a group that is not there: exit code %d and %q", code, said)
	}
	code, out, _ = kferry(t, environ, "groups", flow, "--group", "faster")
	for _, want := range []string{"copy_behind", "It goes on where the copy ends.", "TRANSLATED"} {
		if code != 0 || !strings.Contains(out, want) || strings.Contains(out, "busy") {
			t.Errorf("exit code %d; lacks %q, or tells of others:\n%s", code, want, out)
		}
	}
}

func TestGroupsOfAClusterThatIsAway(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 0)
	env.Kafka(source).Close()
	if code, out, _ := kferry(t, environ, "groups"); code != 1 || !strings.Contains(out, "can't be looked at") {
		t.Errorf("exit code %d and\n%s", code, out)
	}
}
