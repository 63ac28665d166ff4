package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/kferry/kferry/integration/testbed"
	"github.com/kferry/kferry/shared/mm2"
)

// What becomes invalid while records flow stops those flows alone that it is the login of, says what is wrong and with whom, and is over by
// itself when it is mended. What is renewed in time stops nothing. Nothing is lost, doubled or reordered by either.
func TestLockedOutWhileRunning(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.admit()
	slow := func(l lockout) bool { return l.reason == "authorization" } // which is looked at again after half a minute
	first := slices.DeleteFunc(slices.Clone(lockouts), func(l lockout) bool { return !slow(l) })
	rest := slices.DeleteFunc(slices.Clone(lockouts), slow)
	for _, some := range [][]lockout{first, rest} {
		v.spoil(some)
		v.demandLockedOut(some)
		v.mend(some)
	}
	v.demandMended()
}

// A lockout is one thing that happens to the login of a flow, which has a topic of its own name, one partition, and steady traffic.
type lockout struct {
	name   string
	over   testbed.Listener // of the cluster with locks
	target bool             // which is where the flow leads; else it is where it comes from
	login  string           // client properties; DIR is where the flow's files are
	ready  func(v *vault, l lockout)
	spoil  func(v *vault, l lockout)
	mend   func(v *vault, l lockout)
	late   bool   // nothing works from the beginning
	blink  bool   // brokers want the new one at once, and files are looked at once a second
	reason string // what status calls it; "" where the flow goes on
	says   string // part of what status says of it
}

const (
	trusts   = "security.protocol = SSL\nssl.truststore.type = PEM\nssl.truststore.location = DIR/ca.pem\n"
	shows    = trusts + "ssl.keystore.type = PEM\nssl.keystore.location = DIR/client.pem\n"
	trusting = "security.protocol = SASL_SSL\nssl.truststore.type = PEM\nssl.truststore.location = DIR/ca.pem\n"
	scrams   = trusting + `sasl.mechanism = SCRAM-SHA-512
sasl.jaas.config = org.apache.kafka.common.security.scram.ScramLoginModule required username="NAME" password="${directory:DIR:password}";
`
	bears = trusting + `sasl.mechanism = OAUTHBEARER
sasl.login.callback.handler.class = org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler
sasl.oauthbearer.token.endpoint.url = ENDPOINT
sasl.jaas.config = org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId="NAME" clientSecret="secret";
`
)

// Listeners whose certificates become other ones.
const (
	renewed  testbed.Listener = "RENEWED"
	expired  testbed.Listener = "EXPIRED"
	misnamed testbed.Listener = "MISNAMED"
)

var lockouts = []lockout{
	{name: "well", over: testbed.SASLTLS, login: scrams},
	{
		// The brokers have certificates of another authority, which is trusted already.
		name: "server-renewed", over: renewed, login: trusts,
		ready: func(v *vault, l lockout) { v.write(l, "ca.pem", v.pem()+string(v.next.PEM())) },
		spoil: func(v *vault, l lockout) {
			v.locked.Present(l.over, v.next.Issue(testbed.Subject{Name: testbed.Broker}))
			v.cut(l)
		},
	},
	{
		// It is trusted later.
		name: "authority-unknown", over: renewed, login: trusts, reason: "tls", says: "authority",
		mend: func(v *vault, l lockout) { v.write(l, "ca.pem", v.pem()+string(v.next.PEM())) },
	},
	{
		name: "server-expired", over: expired, login: trusts, reason: "tls", says: "expired",
		spoil: func(v *vault, l lockout) {
			v.locked.Present(l.over, v.locked.Authority().Issue(testbed.Subject{
				Name: testbed.Broker, From: time.Now().Add(-48 * time.Hour), Until: time.Now().Add(-time.Hour),
			}))
			v.cut(l)
		},
		mend: func(v *vault, l lockout) {
			v.locked.Present(l.over, v.locked.Authority().Issue(testbed.Subject{Name: testbed.Broker}))
		},
	},
	{name: "target-expired", over: expired, target: true, login: trusts, reason: "tls", says: "expired"},
	{
		name: "server-misnamed", over: misnamed, login: trusts, reason: "tls", says: "kafka.example",
		spoil: func(v *vault, l lockout) {
			v.locked.Present(l.over, v.locked.Authority().Issue(testbed.Subject{Name: testbed.Broker, Hosts: []string{"kafka.example"}}))
			v.cut(l)
		},
		mend: func(v *vault, l lockout) {
			v.locked.Present(l.over, v.locked.Authority().Issue(testbed.Subject{Name: testbed.Broker}))
		},
	},
	{
		// The brokers take certificates of another authority alone, and the client's is one of those already.
		name: "client-renewed", over: testbed.MTLS, login: shows, blink: true,
		ready: func(v *vault, l lockout) { v.certify(l, v.locked.Authority()) },
		spoil: func(v *vault, l lockout) { v.certify(l, v.next) },
	},
	{
		// It becomes one later.
		name: "client-refused", over: testbed.MTLS, login: shows, reason: "tls", says: "certificate",
		ready: func(v *vault, l lockout) { v.certify(l, v.locked.Authority()) },
		spoil: func(v *vault, l lockout) { v.locked.Trust(l.over, v.next); v.cut(l) },
		mend:  func(v *vault, l lockout) { v.certify(l, v.next) },
	},
	{
		name: "password-changed", over: testbed.SASLTLS, login: scrams, reason: "authentication", says: "password-changed",
		spoil: func(v *vault, l lockout) { v.locked.SetPassword(l.name, "another") },
		mend:  func(v *vault, l lockout) { v.write(l, "password", "another") },
	},
	{
		// It is in a mounted Secret.
		name: "password-renewed", over: testbed.SASLTLS, login: strings.Replace(scrams, "${directory:DIR:", "${secrets:kferry/NAME:", 1), blink: true,
		spoil: func(v *vault, l lockout) { v.locked.SetPassword(l.name, "another"); v.write(l, "password", "another") },
	},
	{
		name: "user-deleted", over: testbed.SASLTLS, target: true, login: scrams, reason: "authentication", says: "user-deleted",
		spoil: func(v *vault, l lockout) { v.locked.DeleteUser(l.name) },
		mend:  func(v *vault, l lockout) { v.locked.SetPassword(l.name, password) },
	},
	{
		name: "password-wrong", over: testbed.SASLTLS, login: scrams, late: true, reason: "authentication", says: "password-wrong",
		ready: func(v *vault, l lockout) { v.write(l, "password", "mistyped") },
		mend:  func(v *vault, l lockout) { v.write(l, "password", password) },
	},
	{
		// Tokens last for a few seconds, and are renewed.
		name: "token-renewed", over: testbed.SASLTLS, login: bears,
	},
	{
		// They are not renewed for a while.
		name: "token-refused", over: testbed.SASLTLS, login: bears, reason: "authentication", says: "invalid_client",
		spoil: func(v *vault, l lockout) { v.tokens[l.name].Refuse(true) },
		mend:  func(v *vault, l lockout) { v.tokens[l.name].Refuse(false) },
	},
	{
		name: "right-revoked", over: testbed.SASLTLS, login: scrams, reason: "authorization", says: "right-revoked",
		ready: func(v *vault, l lockout) {
			grant(v.t, v.locked, l.name, kadm.ACLPatternLiteral, v.right(l, kadm.OpRead))
			grant(v.t, v.locked, l.name, kadm.ACLPatternLiteral, v.right(l, kadm.OpDescribe, kadm.OpDescribeConfigs))
		},
		spoil: func(v *vault, l lockout) {
			removed := v.right(l, kadm.OpRead).Topics(l.name).ResourcePatternType(kadm.ACLPatternLiteral)
			if _, err := v.locked.Admin().DeleteACLs(v.t.Context(), removed); err != nil {
				v.t.Fatal(err)
			}
		},
		mend: func(v *vault, l lockout) {
			grant(v.t, v.locked, l.name, kadm.ACLPatternLiteral, v.right(l, kadm.OpRead))
		},
	},
}

const (
	password     = "first"
	tokensLast   = 12 * time.Second
	lockedBatch  = 100 // records of each topic at first
	lockedPerSec = 20
)

// vault is an installation in one process, each flow of which has a login of its own.
type vault struct {
	*installation
	run     *testbed.Process
	locked  *testbed.Cluster // with locks
	plain   *testbed.Cluster // what flows to it come from
	central *testbed.Cluster // where flows from it lead
	next    *testbed.Authority
	tokens  map[string]*testbed.Tokens
	live    map[string]*testbed.Traffic
	dir     string
}

func newVault(t *testing.T) *vault {
	t.Helper()
	authority := testbed.NewAuthority(t, "first authority")
	v := &vault{
		locked: testbed.Kafka(t, testbed.V43, testbed.WithProxy(), testbed.WithSecurity(authority, renewed, expired, misnamed),
			testbed.WithAuthorizer(), testbed.WithConfig("allow.everyone.if.no.acl.found", "true")),
		plain:   testbed.Shared(t, testbed.V33),
		central: testbed.Shared(t, testbed.V43),
		next:    testbed.NewAuthority(t, "second authority"),
		tokens:  map[string]*testbed.Tokens{}, live: map[string]*testbed.Traffic{},
		dir: t.TempDir(),
	}
	v.installation = &installation{t: t}
	names := []string{"central", "plain"}
	var clusters, flows strings.Builder
	for _, l := range lockouts {
		names = append(names, l.name)
		endpoint := ""
		if l.login == bears {
			v.tokens[l.name] = v.locked.Tokens(l.name, "secret")
			v.tokens[l.name].Last(tokensLast)
			endpoint = v.tokens[l.name].Endpoint()
		}
		login := strings.NewReplacer("DIR", v.of(l), "NAME", l.name, "ENDPOINT", endpoint).Replace(l.login)
		login = fmt.Sprintf("bootstrap.servers = %s\n", v.locked.Over(l.over).Bootstrap()) + login
		for line := range strings.Lines(login) {
			clusters.WriteString(l.name + "." + line)
		}
		fmt.Fprintf(&flows, "%s.enabled = true\n%[1]s.topics = %s\n", l.flow(), l.name)
	}
	text := fmt.Sprintf(`clusters = %s
central.bootstrap.servers = %s
plain.bootstrap.servers = %s
%s%sreplication.factor = 1
emit.heartbeats.enabled = false
emit.checkpoints.enabled = false
emit.offset-syncs.enabled = false
sync.topic.acls.enabled = false
sync.topic.configs.enabled = false
heartbeats.replication.enabled = false
refresh.topics.interval.seconds = 2
`, strings.Join(names, ", "), v.central.Bootstrap(), v.plain.Bootstrap(), clusters.String(), flows.String())
	v.installation = onText(t, v.locked, v.central, "locked", text)
	v.env["KFERRY_SECRETS_DIR"] = v.dir
	return v
}

func (l lockout) flow() string {
	if l.target {
		return "plain->" + l.name
	}
	return l.name + "->central"
}

// ways are where the flow comes from and where it leads, past all locks, and the copy's name.
func (v *vault) ways(l lockout) (source, target *testbed.Cluster, copied string) {
	if l.target {
		return v.plain, v.locked, "plain." + l.name
	}
	return v.locked, v.central, l.name + "." + l.name
}

// of is the directory of a flow's files.
func (v *vault) of(l lockout) string { return filepath.Join(v.dir, l.name) }

func (v *vault) pem() string { return string(v.locked.Authority().PEM()) }

// write replaces a file at once.
func (v *vault) write(l lockout, name, content string) {
	v.t.Helper()
	file := filepath.Join(v.of(l), name)
	if err := os.WriteFile(file+".new", []byte(content), 0o600); err != nil {
		v.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		v.t.Fatal(err)
	}
}

// certify gives a flow a certificate.
func (v *vault) certify(l lockout, by *testbed.Authority) {
	v.t.Helper()
	v.write(l, "client.pem", string(by.Issue(testbed.Subject{Name: l.name}).StorePEM()))
}

// cut has everybody log in anew who came by the way of a lockout.
func (v *vault) cut(l lockout) { v.locked.Over(l.over).Proxy(0).Cut() }

func (v *vault) right(l lockout, what ...kadm.ACLOperation) *kadm.ACLBuilder {
	return kadm.NewACLs().Allow("User:" + l.name).AllowHosts("*").Operations(what...)
}

// admit creates all topics, has records flow into them, and waits until they are copied where nothing is wrong.
func (v *vault) admit() {
	v.t.Helper()
	for _, l := range lockouts {
		if err := os.Mkdir(v.of(l), 0o700); err != nil {
			v.t.Fatal(err)
		}
		v.write(l, "ca.pem", v.pem())
		v.write(l, "password", password)
		if strings.Contains(l.login, "SCRAM") {
			v.locked.SetPassword(l.name, password)
		}
		source, target, _ := v.ways(l)
		source.CreateTopic(l.name, 1, 1)
		if cursors := mm2.OffsetsTopic(l.name); !l.target { // of one partition each, where it would have 25
			target.CreateTopic(cursors, 1, 1, "cleanup.policy", "compact")
		}
		if l.ready != nil {
			l.ready(v, l)
		}
		next := testbed.Produce(v.t, source, l.name, testbed.Load{Records: lockedBatch})
		v.live[l.name] = testbed.Live(v.t, source, l.name, testbed.Load{First: next}, lockedPerSec)
	}
	v.run = v.start("run")
	for _, l := range lockouts {
		if !l.late {
			v.grow(l)
		}
	}
}

// grow waits until records have been copied that were written after the call.
func (v *vault) grow(l lockout) {
	v.t.Helper()
	source, target, copied := v.ways(l)
	want := ends(v.t, source, l.name) + 1
	admin := target.Admin()
	defer admin.Close()
	testbed.Eventually(v.t, goneAround+2*soon, fmt.Sprintf("%s to have %d records", copied, want), func() bool {
		return endsBy(v.t, admin, copied) >= want
	})
}

func (v *vault) spoil(some []lockout) {
	v.t.Helper()
	for _, l := range some {
		if l.spoil != nil {
			l.spoil(v, l)
		}
	}
	for _, l := range some {
		v.cut(l)
	}
}

// shown says whether status has a flow as it is to be.
func (l lockout) shown(s status) bool {
	for _, f := range s.Flows {
		if f.Flow != l.flow() {
			continue
		}
		if l.reason == "" || l.reason == "authorization" {
			if f.Error != "" {
				return false
			}
		} else if f.Reason != l.reason || !strings.Contains(f.Error, l.says) {
			return false
		}
		if l.late { // no topic is known yet
			return true
		}
		if len(f.Partitions) != 1 {
			return false
		}
		p := f.Partitions[0]
		if l.reason == "" {
			return p.State != "held" && p.Reason == ""
		}
		return p.Reason == l.reason && strings.Contains(p.Detail, l.says) && !p.Decide
	}
	return false
}

// counted says whether the metrics to alert on have a flow as it is to be.
func (l lockout) counted(got map[string]float64) bool {
	failing := got[fmt.Sprintf(`kferry_flow_failing{flow="%s"}`, l.flow())] == 1
	held := got[fmt.Sprintf(`kferry_partitions_held{flow="%s",reason="authorization"}`, l.flow())] == 1
	return failing == (l.reason == "tls" || l.reason == "authentication") && held == (l.reason == "authorization")
}

// demandLockedOut waits until status and metrics have every one of some lockouts, while records of all other flows are copied.
func (v *vault) demandLockedOut(some []lockout) {
	v.t.Helper()
	var s status
	deadline := time.Now().Add(goneAround + soon)
	testbed.Eventually(v.t, 2*(goneAround+soon), "status", func() bool {
		s = v.statusWith(1) // of a login that is wrong from the beginning
		return time.Now().After(deadline) || !slices.ContainsFunc(some, func(l lockout) bool { return !l.shown(s) })
	})
	testbed.Eventually(v.t, soon, "metrics", func() bool {
		got := metrics(v.t, v.run)
		return !slices.ContainsFunc(some, func(l lockout) bool { return !l.counted(got) })
	})
	for _, l := range some {
		if l.reason == "" {
			v.grow(l)
		}
	}
	table := v.command(1, "status")
	v.t.Logf("status says:\n%s", table)
	for _, l := range some {
		v.t.Run(l.name, func(t *testing.T) {
			if !strings.Contains(table, l.says) {
				t.Errorf("the table doesn't say %q", l.says)
			}
			for _, f := range s.Flows {
				if f.Flow == l.flow() {
					t.Logf("%s: %v", f.Error, f.Partitions)
				}
			}
			if !l.shown(s) {
				t.Errorf("is not shown with reason %q and %q", l.reason, l.says)
			}
		})
	}
}

func (v *vault) mend(some []lockout) {
	v.t.Helper()
	for _, l := range some {
		if l.mend != nil {
			l.mend(v, l)
		}
	}
}

// demandMended waits until every flow goes on, and compares what it has copied.
func (v *vault) demandMended() {
	v.t.Helper()
	mended := time.Now()
	for _, l := range lockouts {
		v.t.Run(l.name+" afterwards", func(t *testing.T) {
			v.grow(l)
			t.Logf("goes on %v after everything was mended", time.Since(mended).Round(time.Second))
			v.live[l.name].Stop()
			source, target, copied := v.ways(l)
			want := ends(t, source, l.name)
			testbed.Eventually(t, copyWithin, "all records", func() bool { return ends(t, target, copied) >= want })
			testbed.Compare(t, source.For(t), l.name, target.For(t), copied)
		})
	}
	counted := metrics(v.t, v.run)
	for _, l := range lockouts {
		for _, reason := range []string{"tls", "authentication"} {
			if stopped := counted[fmt.Sprintf(`kferry_task_failures_total{flow="%s",reason="%s"}`, l.flow(), reason)]; stopped > 0 && l.reason == "" && !l.blink {
				v.t.Errorf("%s was stopped %v times (%s) by what was renewed in time", l.name, stopped, reason)
			}
		}
	}
	for name, tokens := range v.tokens {
		if got := tokens.Issued(); got < 3 {
			v.t.Errorf("%s: %d tokens of %v were issued in all this time", name, got, tokensLast)
		}
	}
	if s := v.status(); slices.ContainsFunc(s.Flows, func(f struct {
		Flow, Error, Reason string
		Warnings            []string
		Partitions          []partition
	}) bool {
		return f.Error != "" || f.Partitions[0].Reason != ""
	}) {
		v.t.Errorf("status says afterwards: %+v", s)
	}
}
