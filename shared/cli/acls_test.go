package cli_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/functions"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A locked is an installation whose coordinator and worker have the README's rights, each under a name of its own on each cluster, so that
// rights which follow give them none.
type locked struct {
	*bubble
	spec spec.Spec // of an operator who may do everything
	user string    // of both roles, on both clusters; "" where each has its own

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

var roles = []string{"coordinator", "worker"}

func userOf(role, alias string) string { return role + "-" + alias }

func inLocked(t *testing.T, test func(l *locked)) {
	t.Helper()
	users := func(alias string) (names []string) {
		for _, role := range roles {
			names = append(names, userOf(role, alias))
		}
		return append(names, "kferry")
	}
	inBubbleOf(t, []local.Cluster{{Alias: "A", Users: users("A")}, {Alias: "B", Users: users("B")}}, func(b *bubble) {
		l := &locked{bubble: b}
		loaded, err := spec.Load(nil, []string{
			"KFERRY_SOURCE_ALIAS=A", "KFERRY_SOURCE_BOOTSTRAP_SERVERS=" + strings.Join(b.Spec("A").BootstrapServers, ","),
			"KFERRY_TARGET_ALIAS=B", "KFERRY_TARGET_BOOTSTRAP_SERVERS=" + strings.Join(b.Spec("B").BootstrapServers, ","),
			"KFERRY_TOPICS=orders,payments,late,inherited", "KFERRY_GROUPS=app", "KFERRY_SYNC_GROUP_OFFSETS=true",
		})
		b.must(err)
		for i, c := range loaded.Clusters {
			loaded.Clusters[i].Login = b.Spec(c.Alias).Login
		}
		l.spec = loaded
		test(l)
	})
}

// Write is the log of coordinator and worker.
func (l *locked) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(line)
}

func (l *locked) logged() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

// start runs a role as its user.
func (l *locked) start(role string) process {
	l.Helper()
	own := l.spec
	own.Clusters = slices.Clone(own.Clusters)
	for i, c := range own.Clusters {
		own.Clusters[i] = l.SpecAs(c.Alias, cmp.Or(l.user, userOf(role, c.Alias)))
	}
	log := slog.New(slog.NewTextHandler(l, nil))
	return l.begin(own, func(s spec.Spec, q *lease.Queue, clusters map[string]*kafka.Cluster) func(context.Context) error {
		if role == "coordinator" {
			return coordinator.New(coordinator.Options{Spec: s, Queue: q, Clusters: clusters, Logger: log}).Run
		}
		return functions.NewWorker(functions.Options{Spec: s, Queue: q, Clusters: clusters, Logger: log}).Run
	})
}

// An entry is one operation of a line of the README's table, for one role.
type entry struct {
	local.Right
	role string
	acls []kmsg.CreateACLsRequestCreation
}

func (e entry) alias() string { return map[string]string{"source": "A", "target": "B"}[e.Side] }

// implied are rights that come with another one, and may be missed first.
var implied = map[string]string{"Read": "Describe", "Write": "Describe", "Alter": "Describe", "AlterConfigs": "DescribeConfigs"}

// named says whether a text tells that the right is lacking, or one that comes with it.
func (e entry) named(text string) bool {
	for _, acl := range e.acls {
		on := e.Resource + " " + acl.ResourceName + " of " + e.alias()
		if e.Resource == "cluster" {
			on = "cluster " + e.alias()
		}
		for _, operation := range []string{e.Operations[0], implied[e.Operations[0]]} {
			if strings.Contains(text, fmt.Sprintf("User:%s lacks %s on %s (", userOf(e.role, e.alias()), operation, on)) {
				return true
			}
		}
	}
	return false
}

// readme is what coordinator and worker may do by the README, but for what only a take-over needs.
func (b *bubble) readme() (all []entry) {
	b.Helper()
	text, err := os.ReadFile("../../README.md")
	b.must(err)
	table, err := local.Rights(string(text))
	b.must(err)
	for _, r := range table {
		for _, role := range r.Roles {
			if !slices.Contains(roles, role) || strings.Contains(r.For, "are on the source") {
				continue
			}
			for _, operation := range r.Operations {
				e := entry{r, role, nil}
				e.Operations = []string{operation}
				e.acls, err = e.ACLs(userOf(role, e.alias()), map[string][]string{
					"topic": {"orders", "payments", "late", "inherited"}, "copy": {"A.orders", "A.payments", "A.late", "A.inherited"}, "group": {"app"},
					"source": {"A"}, "target": {"B"}, "offsets": {"mm2-offsets.A.internal"},
				})
				b.must(err)
				all = append(all, e)
			}
		}
	}
	return all
}

func (l *locked) ask(alias string, req kmsg.Request) kmsg.Response {
	l.Helper()
	client, err := l.Client(alias)
	l.must(err)
	defer client.Close()
	resp, err := client.Request(l.ctx, req)
	l.must(err)
	return resp
}

func (l *locked) grant(entries ...entry) {
	l.Helper()
	for _, e := range entries {
		req := kmsg.NewPtrCreateACLsRequest()
		req.Creations = e.acls
		for _, r := range l.ask(e.alias(), req).(*kmsg.CreateACLsResponse).Results {
			l.must(kerr.ErrorForCode(r.ErrorCode))
		}
	}
}

func (l *locked) revoke(entries ...entry) {
	l.Helper()
	for _, e := range entries {
		req := kmsg.NewPtrDeleteACLsRequest()
		for _, a := range e.acls {
			f := kmsg.NewDeleteACLsRequestFilter()
			f.ResourceType, f.ResourceName, f.ResourcePatternType = a.ResourceType, &a.ResourceName, a.ResourcePatternType
			f.Principal, f.Host, f.Operation, f.PermissionType = &a.Principal, &a.Host, a.Operation, a.PermissionType
			req.Filters = append(req.Filters, f)
		}
		for _, r := range l.ask(e.alias(), req).(*kmsg.DeleteACLsResponse).Results {
			l.must(kerr.ErrorForCode(r.ErrorCode))
			if len(r.MatchingACLs) != 1 {
				l.Fatalf("%d ACLs of %s", len(r.MatchingACLs), e)
			}
		}
	}
}

// status is what an operator sees who may do everything.
func (l *locked) status() coordinator.FlowSurvey { l.Helper(); return l.statusAs("") }

// statusAs is what one sees with the login of a role.
func (l *locked) statusAs(role string) coordinator.FlowSurvey {
	l.Helper()
	line := l.Line()
	queue, err := lease.Open(l.ctx, lease.Options{InProcess: line, Name: l.spec.Name})
	l.must(err)
	defer queue.Close()
	clusters := map[string]*kafka.Cluster{}
	for _, c := range l.spec.Clusters {
		if role != "" {
			c = l.SpecAs(c.Alias, userOf(role, c.Alias))
		}
		clusters[c.Alias], err = kafka.Open(c, kafka.Options{Dialer: line.Dial})
		l.must(err)
		defer clusters[c.Alias].Close()
	}
	s := coordinator.Status(l.ctx, coordinator.Options{Spec: l.spec, Queue: queue, Clusters: clusters})
	return s.Flows[0]
}

// said is all that anybody is told.
func (l *locked) said() string {
	s := l.status()
	text := strings.Join(s.Warnings, "\n") + s.Error + l.logged()
	for _, p := range s.Partitions {
		text += "\n" + p.Detail
	}
	return text
}

func (l *locked) eventually(within time.Duration, what string, is func() bool) {
	l.Helper()
	for end := time.Now().Add(within); !is(); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("not within %s: %s\n%+v\n%s", within, what, l.status(), l.logged())
		}
	}
}

func (l *locked) copied(topics ...string) bool {
	return !slices.ContainsFunc(topics, func(topic string) bool { return l.Records("B", "A."+topic) < l.Records("A", topic) })
}

// exact holds the copies against their sources.
func (l *locked) exact(topics ...string) {
	l.Helper()
	for _, topic := range topics {
		c, err := local.Compare(l.ctx, l.Side("A", topic), l.Side("B", "A."+topic))
		l.must(err)
		if !c.Exact() {
			l.Errorf("%s: %s", topic, c)
		}
	}
}

// consume has a group come to an offset of each partition of a topic on the source.
func (l *locked) consume(group, topic string, offset int64) {
	l.Helper()
	client, err := l.Client("A")
	l.must(err)
	defer client.Close()
	offsets := kadm.Offsets{}
	for p := range l.Kafka("A").PartitionInfos(topic) {
		offsets.AddOffset(topic, int32(p), offset, -1)
	}
	l.must(kadm.NewClient(client).CommitAllOffsets(l.ctx, group, offsets))
}

// silent are rights that nobody names when they are missing, and why.
var silent = map[string]string{
	"coordinator source Describe <topic>":                      "it has Read as well",
	"coordinator source Read <topic>":                          "status shows no age; what comes back is found by names",
	"coordinator source Describe <group>":                      "a broker lists no group that one may not describe",
	"worker source Describe <group>":                           "likewise",
	"coordinator target Describe <source>.heartbeats":          "it tries to create the topic time and again, and is told that it is there",
	"coordinator target DescribeConfigs <offsets>":             "as Connect, it goes on unchecked",
	"worker target DescribeConfigs <offsets>":                  "copies are created without wider limits",
	"worker target Read mm2-offset-syncs.<source>.internal":    "MirrorMaker has left none here",
	"worker target Write <source>-mm2-MirrorSourceConnector-*": "a broker lists no transactional id that one may not describe",
}

// Of all rights one is missing. It is named, and as far as it isn't about records they are copied all the same.
func TestEachRightIsNamedWhereItIsMissing(t *testing.T) {
	var all []entry
	inLocked(t, func(l *locked) { all = l.readme() })
	for i, missing := range all {
		if silent[fmt.Sprintf("%s %s %s %s", missing.role, missing.Side, missing.Operations[0], missing.Name)] != "" {
			continue
		}
		t.Run(fmt.Sprintf("%s %s", missing.role, missing.Right), func(t *testing.T) {
			t.Parallel()
			inLocked(t, func(l *locked) { l.without(missing, slices.Delete(slices.Clone(all), i, i+1)) })
		})
	}
}

func (l *locked) without(missing entry, others []entry) {
	l.must(l.Kafka("A").CreateTopic("orders", 2, map[string]string{"retention.ms": "3600000"}))
	l.must(l.Kafka("A").CreateTopic("payments", 1, nil))
	l.write("orders", 50)
	l.write("payments", 50)
	l.consume("app", "orders", 10)
	l.grant(others...)
	if missing.Operations[0] != "Create" { // which is asked for once, at the beginning
		l.grant(missing)
		coordinator, worker := l.start("coordinator"), l.start("worker")
		l.eventually(time.Minute, "a first copy", func() bool { return l.copied("orders", "payments") })
		time.Sleep(2 * time.Second)
		worker.kill() // before it has written its cursors to the target
		coordinator.stop()
		l.revoke(missing)
	}
	if missing.Name != "<offsets>" || missing.Operations[0] != "Create" { // of which MirrorMaker would have created one
		l.inherit("inherited", 20, 12)
	}
	l.start("coordinator")
	l.start("worker")
	time.Sleep(3 * time.Second)
	l.write("orders", 50)
	l.write("payments", 50)
	l.consume("app", "orders", 20)
	l.must(l.Kafka("A").CreateTopic("late", 1, nil))
	l.write("late", 10)
	l.ask("A", &kmsg.CreatePartitionsRequest{TimeoutMillis: 1000, Topics: []kmsg.CreatePartitionsRequestTopic{{Topic: "orders", Count: 3}}})
	l.alter("orders", "retention.ms", "7200000")
	l.allow("orders", "User:reader")
	l.eventually(time.Minute, "the right to be named", func() bool { return missing.named(l.said()) })
	copies := !slices.ContainsFunc([]string{"records", "cursors", "creating copies", "settings, and creating copies"}, func(what string) bool {
		return strings.HasPrefix(missing.For, what)
	})
	if copies {
		l.eventually(time.Minute, "the copies", func() bool { return l.copied("orders", "payments", "late") })
	}
}

func (l *locked) write(topic string, n int) {
	l.Helper()
	w, err := l.Writer("A", topic)
	l.must(err)
	defer w.Close()
	l.must(w.Write(l.ctx, n))
}

// inherit makes a topic of so many records, of which MirrorMaker with exactly-once has copied the first ones, and its position.
func (l *locked) inherit(topic string, n, landed int) {
	l.Helper()
	source, err := l.Client("A")
	l.must(err)
	defer source.Close()
	target, err := l.Client("B", kgo.TransactionalID(mm2.ConnectGroup("A")+"-"+mm2.SourceConnector+"-0"))
	l.must(err)
	defer target.Close()
	plain, err := l.Client("B")
	l.must(err)
	defer plain.Close()
	l.must(l.Kafka("A").CreateTopic(topic, 1, nil))
	l.must(l.Kafka("B").CreateTopic("A."+topic, 1, nil))
	now := time.Now()
	l.must(target.BeginTransaction())
	for i := range n {
		record := func(topic string) *kgo.Record {
			return &kgo.Record{Topic: topic, Value: fmt.Append(nil, i), Timestamp: now.Add(time.Duration(i) * time.Millisecond)}
		}
		l.must(source.ProduceSync(l.ctx, record(topic)).FirstErr())
		if i < landed {
			l.must(target.ProduceSync(l.ctx, record("A."+topic)).FirstErr())
		}
	}
	l.must(target.EndTransaction(l.ctx, kgo.TryCommit))
	if l.Kafka("B").TopicInfo("mm2-offsets.A.internal") == nil {
		l.must(l.Kafka("B").CreateTopic("mm2-offsets.A.internal", 1, map[string]string{"cleanup.policy": "compact"}))
	}
	key := fmt.Sprintf(`["%s",{"cluster":"A","partition":0,"topic":"%s"}]`, mm2.SourceConnector, topic)
	l.must(plain.ProduceSync(l.ctx, &kgo.Record{Topic: "mm2-offsets.A.internal", Key: []byte(key), Value: fmt.Appendf(nil, `{"offset":%d}`, landed-1)}).FirstErr())
}

// alter sets a topic's setting on the source.
func (l *locked) alter(topic, key, value string) {
	l.Helper()
	client, err := l.Client("A")
	l.must(err)
	defer client.Close()
	_, err = kadm.NewClient(client).AlterTopicConfigs(l.ctx, []kadm.AlterConfig{{Name: key, Value: &value}}, topic)
	l.must(err)
}

// allow gives somebody else a right on the source.
func (l *locked) allow(topic, principal string) {
	l.Helper()
	acl := kmsg.NewCreateACLsRequestCreation()
	acl.ResourceType, acl.ResourceName, acl.ResourcePatternType = kmsg.ACLResourceTypeTopic, topic, kmsg.ACLResourcePatternTypeLiteral
	acl.Principal, acl.Host, acl.Operation, acl.PermissionType = principal, "*", kmsg.ACLOperationRead, kmsg.ACLPermissionTypeAllow
	l.grant(entry{Right: local.Right{Side: "source"}, acls: []kmsg.CreateACLsRequestCreation{acl}})
}

// Rights on one topic are taken away while records flow, and given back: what needs them is held with a message that says how to mend it, everything
// else goes on, it resumes by itself, and the copies are exact.
func TestRightsAreRevokedWhileRecordsFlow(t *testing.T) {
	const resumed = 40 * time.Second // a task is looked at again after 30
	of := func(role, side, name string, operations ...string) func(e entry) bool {
		return func(e entry) bool {
			return (role == "" || e.role == role) && e.Side == side && e.Name == name && (len(operations) == 0 || slices.Contains(operations, e.Operations[0]))
		}
	}
	for name, c := range map[string]struct {
		revoked func(entry) bool
		says    string
		whole   bool // it is about all topics
	}{
		"write to a copy": {of("worker", "target", "<copy>", "Write"), "User:worker-B lacks Write on topic A.orders of B", false},
		"read a topic":    {of("worker", "source", "<topic>", "Read"), "User:worker-A lacks Read on topic orders of A", false},
		"see a topic":     {of("", "source", "<topic>"), "lacks Describe on topic orders of A", false},
		"see a copy":      {of("", "target", "<copy>"), "lacks Describe on topic A.orders of B", false},
		"write cursors":   {of("worker", "target", "<offsets>", "Write"), "User:worker-B lacks Write on topic mm2-offsets.A.internal of B", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inLocked(t, func(l *locked) {
				for _, topic := range []string{"orders", "payments"} {
					l.must(l.Kafka("A").CreateTopic(topic, 2, nil))
					l.write(topic, 20)
				}
				all := l.readme()
				l.grant(all...)
				l.start("coordinator")
				l.start("worker")
				stop := l.flow("orders", "payments")
				l.eventually(time.Minute, "the first records", func() bool { return l.Records("B", "A.orders") > 0 && l.Records("B", "A.payments") > 0 })

				var revoked []entry
				for _, e := range all {
					if c.revoked(e) {
						e.acls = slices.DeleteFunc(slices.Clone(e.acls), func(a kmsg.CreateACLsRequestCreation) bool {
							return !c.whole && !strings.HasSuffix(a.ResourceName, "orders")
						})
						revoked = append(revoked, e)
					}
				}
				l.revoke(revoked...)
				l.eventually(90*time.Second, "held for want of a right: "+c.says, func() bool {
					held := 0
					for _, p := range l.statusAs("coordinator").Partitions {
						if p.SourceTopic == "orders" && p.State == coordinator.Held && p.Reason == lease.ReasonAuthorization && !p.Decide &&
							strings.Contains(p.Detail, c.says) && strings.Contains(p.Detail, "kafka-acls.sh --bootstrap-server localhost:9") {
							held++
						}
					}
					return held == 2
				})
				before := l.Records("B", "A.payments")
				if !c.whole {
					l.eventually(15*time.Second, "the other topic to go on", func() bool { return l.Records("B", "A.payments") > before })
				}
				l.grant(revoked...)
				behind := l.Records("A", "orders")
				l.eventually(resumed, "it resumes", func() bool { return l.Records("B", "A.orders") >= behind })
				stop()
				l.eventually(time.Minute, "all is copied", func() bool { return l.copied("orders", "payments") })
				l.eventually(time.Minute, "nothing is held", func() bool {
					return !slices.ContainsFunc(l.statusAs("coordinator").Partitions, func(p coordinator.PartitionSurvey) bool { return p.State != coordinator.Idle })
				})
				l.exact("orders", "payments")
			})
		})
	}
}

// Whoever grants the rights only after the start doesn't have to start anything again.
func TestRightsAreGrantedAfterTheStart(t *testing.T) {
	inLocked(t, func(l *locked) {
		l.must(l.Kafka("A").CreateTopic("orders", 2, nil))
		l.write("orders", 20)
		l.start("coordinator")
		l.start("worker")
		all := l.readme()
		l.eventually(time.Minute, "a right to be named", func() bool { return strings.Contains(l.logged(), "User:coordinator-B lacks ") })
		for i, e := range all { // the worker comes to want to write before it may
			if e.role == "coordinator" || e.Operations[0] != "Write" {
				l.grant(all[i])
			}
		}
		l.eventually(time.Minute, "the worker's to be named", func() bool {
			return strings.Contains(l.logged(), "User:worker-B lacks Write on topic mm2-offsets.A.internal of B")
		})
		l.grant(all...)
		l.eventually(time.Minute, "the copy", func() bool { return l.copied("orders") })
		l.exact("orders")
	})
}

// The README's commands are run as a shell would, for a user of both roles, and nothing is lacking.
func TestRightsReadyToPaste(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "source=\"kafka-acls.sh")
	block, _, _ = strings.Cut(block, "```")
	var entries []entry
	var loop []string
	for line := range strings.Lines(block) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(strings.ReplaceAll(line, "'", ""))
		if len(words) > 0 && words[0] == "for" {
			loop = strings.Split(strings.TrimSuffix(strings.Join(words[3:], " "), "; do"), " ")
			continue
		}
		if len(words) == 0 || words[0] != "$source" && words[0] != "$target" {
			continue
		}
		e := entry{Right: local.Right{Side: words[0][1:]}}
		suffix := ""
		for i := 1; i < len(words); i++ {
			switch option := strings.TrimPrefix(words[i], "--"); option {
			case "operation":
				i++
				e.Operations = append(e.Operations, words[i])
			case "resource-pattern-type":
				i++
				suffix = "*"
			case "cluster":
				e.Resource = option
			default:
				i++
				e.Resource, e.Name = option, words[i]
			}
		}
		names := []string{e.Name + suffix}
		if e.Name == "$topic" {
			names = loop
		}
		for _, name := range names {
			e.Name = strings.NewReplacer("kafka-dc-1", "A", "mirrormaker2-cluster-offsets", "mm2-offsets.A.internal").Replace(name)
			one := e
			if one.acls, err = e.ACLs("kferry", nil); err != nil {
				t.Fatal(err)
			}
			if e.Name == "*" { // every one, not a prefix
				for i := range one.acls {
					one.acls[i].ResourceName, one.acls[i].ResourcePatternType = "*", kmsg.ACLResourcePatternTypeLiteral
				}
			}
			entries = append(entries, one)
		}
	}
	if len(entries) != 10 {
		t.Fatalf("%d commands: %+v", len(entries), entries)
	}
	inLocked(t, func(l *locked) {
		l.must(l.Kafka("A").CreateTopic("orders", 2, map[string]string{"retention.ms": "3600000"}))
		l.write("orders", 20)
		l.consume("app", "orders", 10)
		l.grant(entries...)
		l.user = "kferry"
		l.start("coordinator")
		l.start("worker")
		l.eventually(time.Minute, "the copy", func() bool { return l.copied("orders") })
		l.alter("orders", "retention.ms", "7200000")
		l.ask("A", &kmsg.CreatePartitionsRequest{TimeoutMillis: 1000, Topics: []kmsg.CreatePartitionsRequestTopic{{Topic: "orders", Count: 3}}})
		l.allow("orders", "User:reader")
		l.eventually(time.Minute, "positions, partitions and heartbeats", func() bool {
			return l.Records("B", "A.checkpoints.internal") > 0 && len(l.Kafka("B").PartitionInfos("A.orders")) == 3 && l.Records("B", "heartbeats") > 20
		})
		if said := l.said(); strings.Contains(said, "lacks") {
			l.Error(said)
		}
	})
}

// flow writes to topics of the source until it is told to stop.
func (l *locked) flow(topics ...string) (stop func()) {
	l.Helper()
	ctx, enough := context.WithCancel(l.ctx)
	var writing sync.WaitGroup
	for _, topic := range topics {
		w, err := l.Writer("A", topic)
		l.must(err)
		writing.Go(func() {
			defer w.Close()
			if err := w.Stream(ctx, 20); err != nil {
				l.Errorf("stream: %v", err)
			}
		})
	}
	return func() { enough(); writing.Wait() }
}
