package integration

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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

func TestRights(t *testing.T) {
	t.Parallel()
	authority := testbed.NewAuthority(t, "rights")
	var clusters [2]*testbed.Cluster
	var starting sync.WaitGroup
	for i := range clusters {
		starting.Go(func() {
			clusters[i] = testbed.Kafka(t, testbed.V43, testbed.WithSecurity(authority), testbed.WithAuthorizer(), auditing()).Over(testbed.SASL)
		})
	}
	starting.Wait()
	source, target := clusters[0], clusters[1]
	t.Run("least", func(t *testing.T) { t.Parallel(); leastPrivilege(t, source.For(t), target.For(t)) })
	t.Run("revoked", func(t *testing.T) { t.Parallel(); revokedRights(t, source.For(t), target.For(t)) })
}

// mirroring is an installation of an alias whose parts log in.
func mirroring(t *testing.T, source, target *testbed.Cluster, alias, topics string) *installation {
	t.Helper()
	k := copying(t, source, target, topics).over(testbed.StartNATS(t)).with("KFERRY_SOURCE_ALIAS", alias)
	k.alias = alias
	return k
}

// allowed gives a user of an installation, by the name that it has on each cluster, what the README lists for some roles.
func (k *installation) allowed(user string, roles []string, topics, groups []string) (grants []granted) {
	k.t.Helper()
	aliases, sides := map[string]string{"source": k.alias, "target": "central"}, map[string]*testbed.Cluster{"source": k.source, "target": k.target}
	var copies []string
	for _, topic := range topics {
		copies = append(copies, k.copyOf(topic))
	}
	for side, c := range sides {
		c.SetPassword(user+"-"+aliases[side], user+"-"+aliases[side])
	}
	for _, r := range readmeRights(k.t) {
		if strings.Contains(r.For, "are on the source") || !slices.ContainsFunc(r.Roles, func(role string) bool { return slices.Contains(roles, role) }) {
			continue
		}
		acls, err := r.ACLs(user+"-"+aliases[r.Side], map[string][]string{
			"topic": topics, "copy": copies, "group": groups,
			"source": {k.alias}, "target": {"central"}, "offsets": {mm2.OffsetsTopic(k.alias)},
		})
		if err != nil {
			k.t.Fatal(err)
		}
		grantAll(k.t, sides[r.Side], acls)
		grants = append(grants, granted{r, sides[r.Side], acls})
	}
	return grants
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

func leastPrivilege(t *testing.T, source, target *testbed.Cluster) {
	k := mirroring(t, source, target, "dc", "orders,inherited").with("KFERRY_HEARTBEATS", "true", "KFERRY_SYNC_GROUP_OFFSETS", "true", "KFERRY_GROUPS", "app")
	roles := []string{"coordinator", "worker", "operator"}
	var grants []granted
	for _, role := range roles {
		grants = append(grants, k.allowed(role, []string{role}, []string{"orders", "inherited"}, []string{"app"})...)
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
	commands := func(all ...string) {
		for _, command := range all {
			words := strings.Fields(command)
			if out := operator.command(0, words[0], words[1:]...); strings.Contains(out, "lacks") {
				t.Errorf("%s: %s", command, out)
			}
		}
	}
	commands("status", "verify", "groups", "gaps", "limit", "offsets list dc->central", "pause dc->central", "unpause dc->central")

	var unused []string
	defer func() { // an Eventually that fails says only what it waited for
		if t.Failed() {
			t.Log(strings.Join(unused, "\n"))
		}
	}()
	testbed.Eventually(t, soon, "each right to be used", func() bool {
		allowed := map[*testbed.Cluster]map[demand]string{}
		for _, c := range []*testbed.Cluster{k.source, k.target} {
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
	commands( // which nobody carries out any more
		"offsets reset dc->central --topic orders --partition 1", "resume dc->central --topic orders --partition 1 --accept-gap")
	for _, c := range []*testbed.Cluster{k.source, k.target} {
		_, denied := asked(c)
		for d, why := range denied {
			if role, _, _ := strings.Cut(d.user, "-"); !slices.Contains(roles, role) || d.operation == "CLUSTER_ACTION" && why == "OffsetForLeaderEpoch" { // first the broker sees whether it is another one that asks
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

// The right to write to one topic's copy and the right to read another topic are taken away while records flow, and given back.
func revokedRights(t *testing.T, source, target *testbed.Cluster) {
	k := mirroring(t, source, target, "dr", "written,read,spared")
	topics := []string{"written", "read", "spared"}
	taken := map[*testbed.Cluster][]kmsg.CreateACLsRequestCreation{}
	for _, g := range k.allowed("run", []string{"coordinator", "worker"}, topics, []string{"nobody"}) {
		for _, a := range g.acls {
			if a.ResourceName == "dr.written" && a.Operation == kmsg.ACLOperationWrite || a.ResourceName == "read" && a.Operation == kmsg.ACLOperationRead && slices.Contains(g.right.Roles, "worker") {
				taken[g.on] = append(taken[g.on], a)
			}
		}
	}
	var traffic []*testbed.Traffic
	for _, topic := range topics {
		k.source.CreateTopic(topic, 2, 1)
		traffic = append(traffic, testbed.Live(t, k.source, topic, testbed.Load{}, 50))
	}
	user := k.as("run")
	run := user.start("run")
	resumes := func(topic string) {
		t.Helper()
		since, behind := time.Now(), ends(t, k.source, topic)
		testbed.Eventually(t, goneAround+soon, topic+" to go on", func() bool { return k.copied(topic) >= behind })
		t.Logf("%s is copied up to where it was %s ago", topic, time.Since(since).Round(time.Second))
	}
	for _, topic := range topics {
		resumes(topic)
	}
	for c, acls := range taken {
		revokeAll(t, c, acls)
	}
	testbed.Eventually(t, goneAround+soon, "what needs the rights to be held", func() bool {
		s := user.status()
		written, read := s.partition("written", 0), s.partition("read", 0)
		return written.Reason == "authorization" && strings.Contains(written.Detail, "User:run-central lacks Write on topic dr.written of central") &&
			read.Reason == "authorization" && strings.Contains(read.Detail, "User:run-dr lacks Read on topic read of dr") &&
			written.State == "held" && read.State == "held"
	})
	t.Log(user.status().partition("written", 0), user.status().partition("read", 0))
	resumes("spared")
	for c, acls := range taken {
		grantAll(t, c, acls)
	}
	resumes("written")
	resumes("read")
	for _, live := range traffic {
		live.Stop()
	}
	k.await(topics...)
	k.stop(run)
	k.compare(topics...)
}
