package cli_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/kferry/kferry/shared/local"
)

// readmeBlock is the text of README's one block in a language.
func readmeBlock(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, begins := strings.Cut(string(text), "```"+language+"\n")
	block, _, ends := strings.Cut(after, "\n```")
	if !begins || !ends {
		t.Fatalf("README has no %s block", language)
	}
	return block
}

// natsUsers are those of the README, with passwords of their names, as the server itself reads them.
func natsUsers(t *testing.T) []*server.User {
	t.Helper()
	text := regexp.MustCompile(`\$(COORDINATOR|WORKER|OPERATOR)\b`).ReplaceAllStringFunc(readmeBlock(t, "nats"), func(variable string) string {
		return "geheim-" + strings.ToLower(variable[1:])
	})
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return options.Users
}

func writeTo(t *testing.T, env *local.Env, alias, topic string, n int) {
	t.Helper()
	w, err := env.Writer(alias, topic)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Write(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

// as are the variables of one role.
func as(environ []string, role string) []string {
	return append(slices.Clone(environ), "NATS_USER="+role, "NATS_PASSWORD=geheim-"+role, "NATS_INBOX_PREFIX=_INBOX_"+role)
}

// Each role does all that it can do with just the rights on NATS that the README lists for it, and each line there is needed.
func TestTheRightsOnNATSThatTheReadmeLists(t *testing.T) {
	t.Parallel()
	env, environ := world(t, 300)
	for alias, topic := range map[string]string{source: "payments", target: source + ".payments"} {
		if err := env.Kafka(alias).CreateTopic(topic, 1, nil); err != nil {
			t.Fatal(err)
		}
		writeTo(t, env, alias, topic, 5)
	}
	var refused buffer
	users := natsUsers(t)
	var names []string
	for _, u := range users {
		names = append(names, u.Username)
	}
	if want := []string{"coordinator", "worker", "operator"}; !slices.Equal(names, want) {
		t.Fatalf("README has rights for %q", names)
	}
	queue, err := local.StartNATS(t.TempDir(), local.NATSListen("127.0.0.1:0"), local.NATSLogger(slog.New(slog.NewTextHandler(&refused, nil))),
		local.NATSServer(func(o *server.Options) {
			o.Users = append(users, &server.User{Username: "spy", Password: "geheim-spy"})
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(queue.Close)
	seen := watchSubjects(t, queue)

	environ = append(environ, "NATS_URL="+queue.URL(), "KFERRY_SYNC_GROUP_OFFSETS=true", "KFERRY_RATE_RECORDS=30", "KFERRY_TOPICS=orders,payments")
	coordinator := begin(t, as(environ, "coordinator"), "coordinator")
	eventually(t, "the queue is there", func() bool { return strings.Contains(coordinator.err.String(), "cursors loaded") })
	first := begin(t, as(environ, "worker"), "worker")
	eventually(t, "records are copied", func() bool { return copies(env) > 0 })
	for _, c := range []*command{first, coordinator} { // the worker hands back what is left
		c.cancel()
		c.wait(t)
	}
	environ = append(environ, "KFERRY_TASKS_MAX=1")
	begin(t, as(environ, "coordinator"), "coordinator")
	flow := source + "->" + target
	if code, out, text := kferry(t, as(environ, "operator"), "limit", flow, "--records", "5000"); code != 0 {
		t.Errorf("limit: exit code %d\n%s%s", code, out, text)
	}
	begin(t, as(environ, "worker"), "worker")
	eventually(t, "300 records are copied", func() bool { return copies(env) == 300 })
	eventually(t, "what holds somebody else's records is held", func() bool {
		_, out, _ := kferry(t, as(environ, "operator"), "status")
		return strings.Contains(out, "held (no_cursor)")
	})
	offsets := filepath.Join(t.TempDir(), "offsets.json")
	for _, args := range [][]string{
		{"pause", flow}, {"unpause", flow}, {"gaps"}, {"groups"},
		{"offsets", "list", flow}, {"offsets", "set", flow, offsets}, {"resume", flow, "--topic", "payments", "--restart"}, {"status"},
	} {
		code, out, text := kferry(t, as(environ, "operator"), args...)
		if code != 0 || strings.Contains(text, "queue") {
			t.Errorf("%q: exit code %d\n%s%s", args, code, out, text)
		}
		if slices.Equal(args[:min(2, len(args))], []string{"offsets", "list"}) {
			if err := os.WriteFile(offsets, []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	code, _, text := kferry(t, append(as(environ, "coordinator"), "NATS_REPLICAS=3"), "coordinator")
	if want := "NATS_REPLICAS is 3: set it to the number of servers that keep the queue"; code != 1 || !strings.Contains(text, want) {
		t.Errorf("three replicas on one server: exit code %d, want 1, and no %q in\n%s", code, want, text)
	}
	write(t, env, 30)
	eventually(t, "more is copied", func() bool { return copies(env) >= 330 })
	eventually(t, "what was held goes on", func() bool {
		return env.Records(target, source+".payments") == 10
	})
	if text := refused.String(); strings.Contains(text, "Violation") {
		t.Errorf("README lacks rights:\n%s", text)
	}
	for _, u := range users {
		for _, subject := range u.Permissions.Publish.Allow {
			if !seen.any(u.Username, subject) {
				t.Errorf("README lets %s publish to %s, which it doesn't", u.Username, subject)
			}
		}
	}
	// And nobody takes the place of another.
	for _, args := range [][]string{{"coordinator", "worker"}, {"worker", "operator"}} {
		role, login := args[0], args[1]
		before := strings.Count(refused.String(), "Violation")
		begin(t, as(environ, login), role)
		eventually(t, "a "+role+" with the rights of "+login+" is refused", func() bool { return strings.Count(refused.String(), "Violation") > before })
	}
}

// subjects are those that each role was seen to publish to, told apart by where it wants its answers; "" where it wants none.
type subjects struct {
	mu  sync.Mutex
	all map[string][]string
}

func watchSubjects(t *testing.T, of *local.NATS) *subjects {
	t.Helper()
	s := &subjects{all: map[string][]string{}}
	conn, err := nats.Connect(of.URL(), nats.UserInfo("spy", "geheim-spy"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if _, err := conn.Subscribe(">", func(m *nats.Msg) {
		role, _, _ := strings.Cut(strings.TrimPrefix(m.Reply, "_INBOX_"), ".")
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all[role] = append(s.all[role], m.Subject)
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *subjects) any(role, pattern string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(slices.Concat(s.all[role], s.all[""]), func(subject string) bool { return server.SubjectsCollide(pattern, subject) })
}
