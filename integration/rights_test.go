package integration

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/local"
	"github.com/kferry/kferry/shared/mm2"
)

// Coordinator, worker and operator have logins of their own, and the rights that the README lists for them.

// auditing has a broker say of each right whether it was asked for, in its output.
func auditing() testbed.KafkaOption {
	return testbed.WithJVM("-Dorg.slf4j.simpleLogger.log.kafka.authorizer.logger=debug")
}

// readmeRights is the README's table.
func readmeRights(t *testing.T) []local.Right {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	all, err := local.Rights(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A demand is a right that somebody has asked for.
type demand struct{ user, kind, name, operation string }

func (g demand) String() string {
	return fmt.Sprintf("%s: %s on %s %s", g.user, g.operation, g.kind, g.name)
}

// grantAll gives users their rights.
func grantAll(t *testing.T, c *testbed.Cluster, acls []kmsg.CreateACLsRequestCreation) {
	t.Helper()
	client := c.Client()
	defer client.Close()
	req := kmsg.NewPtrCreateACLsRequest()
	req.Creations = acls
	answer, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range answer.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			t.Fatalf("%+v: %v", acls[i], err)
		}
	}
}

// revokeAll takes them back.
func revokeAll(t *testing.T, c *testbed.Cluster, acls []kmsg.CreateACLsRequestCreation) {
	t.Helper()
	client := c.Client()
	defer client.Close()
	req := kmsg.NewPtrDeleteACLsRequest()
	for _, a := range acls {
		f := kmsg.NewDeleteACLsRequestFilter()
		f.ResourceType, f.ResourceName, f.ResourcePatternType = a.ResourceType, &a.ResourceName, a.ResourcePatternType
		f.Principal, f.Host, f.Operation, f.PermissionType = &a.Principal, &a.Host, a.Operation, a.PermissionType
		req.Filters = append(req.Filters, f)
	}
	answer, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range answer.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil || len(r.MatchingACLs) != 1 {
			t.Fatalf("%+v: %v, %d taken back", acls[i], err, len(r.MatchingACLs))
		}
	}
}

var decision = regexp.MustCompile(`Principal = User:(\S+) is (Allowed|Denied) operation = (\S+) from host = \S+ on resource = (\w+):LITERAL:(\S+) for request = (\w+)`)

// asked reads in a broker's output which rights users have asked for, and what for.
func asked(c *testbed.Cluster) (allowed, denied map[demand]string) {
	allowed, denied = map[demand]string{}, map[demand]string{}
	for _, line := range decision.FindAllStringSubmatch(c.Broker(0).Output(), -1) {
		to := allowed
		if line[2] == "Denied" {
			to = denied
		}
		to[demand{line[1], strings.ToLower(line[4]), line[5], line[3]}] = line[6]
	}
	return allowed, denied
}

// granted is a line of the table, and what it has come to for one role.
type granted struct {
	right local.Right
	on    *testbed.Cluster
	acls  []kmsg.CreateACLsRequestCreation
}

// used says whether an operation has been asked for, on whichever of the line's resources.
func (g granted) used(operation string, allowed map[demand]string) bool {
	letters := strings.NewReplacer("_", "", "-", "")
	for _, acl := range g.acls {
		for d := range allowed {
			same := d.name == acl.ResourceName || acl.ResourcePatternType == kmsg.ACLResourcePatternTypePrefixed && strings.HasPrefix(d.name, acl.ResourceName)
			if same && "User:"+d.user == acl.Principal && strings.EqualFold(letters.Replace(d.operation), operation) &&
				strings.EqualFold(d.kind, letters.Replace(g.right.Resource)) {
				return true
			}
		}
	}
	return false
}

// locked are a source and a target that keep to rights, and an installation whose parts log in there.
func locked(t *testing.T, topics string) *installation {
	t.Helper()
	authority := testbed.NewAuthority(t, "rights")
	var clusters [2]*testbed.Cluster
	var starting sync.WaitGroup
	for i := range clusters {
		starting.Go(func() {
			clusters[i] = testbed.Kafka(t, testbed.V43, testbed.WithSecurity(authority), testbed.WithAuthorizer(), auditing()).Over(testbed.SASL)
		})
	}
	starting.Wait()
	k := copying(t, clusters[0], clusters[1], topics).over(testbed.StartNATS(t)).with("KFERRY_SOURCE_ALIAS", "dc")
	k.alias = "dc"
	return k
}

// as is the installation as one of its users, who has another name on each cluster: rights that follow would give it the source's on the target.
func (k *installation) as(user string) *installation {
	var login []string
	for side, alias := range map[string]string{"SOURCE": k.alias, "TARGET": "central"} {
		name := "KFERRY_" + side + "_"
		login = append(login, name+"SECURITY_PROTOCOL", testbed.SASL.Protocol(), name+"SASL_MECHANISM", "SCRAM-SHA-512",
			name+"SASL_USERNAME", user+"-"+alias, name+"SASL_PASSWORD", user+"-"+alias)
	}
	return k.with(login...)
}

func TestLeastPrivilege(t *testing.T) {
	k := locked(t, "orders,inherited").with("KFERRY_HEARTBEATS", "true", "KFERRY_SYNC_GROUP_OFFSETS", "true", "KFERRY_GROUPS", "app")
	var grants []granted
	aliases := map[string]string{"source": "dc", "target": "central"}
	sides := map[string]*testbed.Cluster{"source": k.source, "target": k.target}
	for _, r := range readmeRights(t) {
		if strings.Contains(r.For, "where they are on the source") {
			continue
		}
		for _, role := range r.Roles {
			acls, err := r.ACLs(role+"-"+aliases[r.Side], map[string][]string{
				"topic": {"orders", "inherited"}, "copy": {"dc.orders", "dc.inherited"}, "group": {"app"},
				"source": {"dc"}, "target": {"central"}, "offsets": {"mm2-offsets.dc.internal"},
			})
			if err != nil {
				t.Fatal(err)
			}
			grants = append(grants, granted{r, sides[r.Side], acls})
			grantAll(t, sides[r.Side], acls)
		}
	}
	for _, c := range sides {
		for _, role := range []string{"coordinator", "worker", "operator"} {
			for _, alias := range aliases {
				c.SetPassword(role+"-"+alias, role+"-"+alias)
			}
		}
	}

	// Topics are created, records, groups, settings and rights follow, partitions are added.
	k.source.CreateTopic("orders", 2, 1, "retention.ms", "3600000")
	next := testbed.Produce(t, k.source, "orders", testbed.Load{Records: 300})
	coordinator, worker := k.as("coordinator").start("coordinator"), k.as("worker").start("worker")
	k.await("orders")
	app := mover{t: t, group: "app", from: k.source, topic: "orders"}
	app.reads(k.source, "orders", 10)
	setConfig(t, k.source, "orders", "retention.ms", "7200000")
	reader := kmsg.NewCreateACLsRequestCreation()
	reader.ResourceType, reader.ResourceName, reader.ResourcePatternType = kmsg.ACLResourceTypeTopic, "orders", kmsg.ACLResourcePatternTypeLiteral
	reader.Principal, reader.Host, reader.Operation, reader.PermissionType = "User:reader", "*", kmsg.ACLOperationRead, kmsg.ACLPermissionTypeAllow
	grantAll(t, k.source, []kmsg.CreateACLsRequestCreation{reader})
	if _, err := k.source.Admin().UpdatePartitions(t.Context(), 3, "orders"); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, soon, "settings, rights and positions on the target", func() bool {
		return ownConfig(t, k.target, "dc.orders")["retention.ms"] == "7200000" && len(app.at(k.target, "dc.orders")) == 2 &&
			strings.Contains(k.as("operator").command(0, "groups"), "app")
	})
	testbed.Produce(t, k.source, "orders", testbed.Load{Records: 300, First: next})
	k.await("orders")

	// The queue knows more than the topic of cursors when the worker is killed, and both start again over what MirrorMaker left.
	worker.Kill()
	k.stop(coordinator)
	k.source.CreateTopic("inherited", 1, 1)
	testbed.Produce(t, k.source, "inherited", testbed.Load{Records: 20})
	k.inherit("inherited", 12)
	coordinator, worker = k.as("coordinator").start("coordinator"), k.as("worker").start("worker")
	k.await("orders", "inherited")
	app.reads(k.source, "orders", 50)
	testbed.Eventually(t, soon, "the group's new positions", func() bool {
		return maps.Equal(app.at(k.target, "dc.orders"), app.at(k.source, "orders"))
	})

	operator := k.as("operator")
	for _, command := range []string{
		"status", "verify", "groups", "gaps", "limit", "offsets list dc->central", "pause dc->central", "unpause dc->central",
		"offsets reset dc->central --topic orders --partition 1", "resume dc->central --topic orders --partition 1 --accept-gap",
	} {
		words := strings.Fields(command)
		if out := operator.command(0, words[0], words[1:]...); command == "status" && strings.Contains(out, "lacks") {
			t.Errorf("status: %s", out)
		}
	}

	var unused []string
	defer func() { // an Eventually that fails says only what it waited for
		if t.Failed() {
			t.Log(strings.Join(unused, "\n"))
		}
	}()
	testbed.Eventually(t, soon, "each right to be used", func() bool {
		allowed := map[*testbed.Cluster]map[demand]string{}
		for _, c := range sides {
			allowed[c], _ = asked(c)
		}
		unused = nil
		for _, g := range grants {
			for _, operation := range g.right.Operations {
				if !g.used(operation, allowed[g.on]) {
					unused = append(unused, fmt.Sprintf("nobody has used %s: %s", operation, g.right))
				}
			}
		}
		return len(unused) == 0
	})
	k.stop(coordinator)
	k.stop(worker)
	for _, c := range sides {
		_, denied := asked(c)
		for d, why := range denied {
			if d.operation == "CLUSTER_ACTION" && why == "OffsetForLeaderEpoch" { // first the broker sees whether it is another one that asks
				continue
			}
			t.Errorf("%s: %s was lacking (%s)", c.Bootstrap(), d, why)
		}
	}
	k.compare("orders", "inherited")
}

// inherit leaves the first n records of a topic of one partition on the target, as MirrorMaker with exactly-once does, and its position.
func (k *installation) inherit(topic string, n int) {
	k.t.Helper()
	copied := k.copyOf(topic)
	k.target.CreateTopic(copied, 1, 1)
	client := k.target.Client(kgo.TransactionalID(mm2.ConnectGroup(k.alias) + "-" + mm2.SourceConnector + "-0"))
	if err := client.BeginTransaction(); err != nil {
		k.t.Fatal(err)
	}
	for _, r := range testbed.Read(k.t, k.source, topic, testbed.Committed)[0][:n] {
		r = &kgo.Record{Topic: copied, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}
		if err := client.ProduceSync(k.t.Context(), r).FirstErr(); err != nil {
			k.t.Fatal(err)
		}
	}
	if err := client.EndTransaction(k.t.Context(), kgo.TryCommit); err != nil {
		k.t.Fatal(err)
	}
	key := fmt.Sprintf(`["%s",{"cluster":"%s","partition":0,"topic":"%s"}]`, mm2.SourceConnector, k.alias, topic)
	plain := k.target.Client()
	record := &kgo.Record{Topic: mm2.OffsetsTopic(k.alias), Key: []byte(key), Value: fmt.Appendf(nil, `{"offset":%d}`, n-1)}
	if err := plain.ProduceSync(k.t.Context(), record).FirstErr(); err != nil {
		k.t.Fatal(err)
	}
}
