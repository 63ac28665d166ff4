package cli_test

import (
	"encoding/json"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/kferry/kferry/shared/connect"
)

// ofTarget are the labels that whoever scrapes adds.
var ofTarget = []string{"__name__", "instance", "job", "namespace"}

// ofProcess are the metrics of client_golang that the dashboard asks for.
var ofProcess = map[string][]string{"process_resident_memory_bytes": nil}

// notAlways are the metrics that have a value only where something has gone wrong, or workers are called.
var notAlways = []string{
	"kferry_partitions_held", "kferry_partitions_expiring", "kferry_gaps_unacknowledged", "kferry_task_failures_total", "kferry_decisions_total",
	"kferry_wakeups_total",
}

// A panel is what Grafana draws.
type panel struct {
	Title   string `json:"title"`
	Targets []struct {
		Expr string `json:"expr"`
	} `json:"targets"`
}

// ownQueries are those of kferry's dashboard, with Grafana's variables filled in, by their panel.
func ownQueries(t *testing.T) (all []query) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/grafana/kferry.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []panel `json:"panels"`
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "1m", "$flow", ".*")
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			q := query{panel: p.Title, expression: fill.Replace(target.Expr)}
			for _, name := range notAlways {
				if strings.Contains(q.expression, name) && !strings.Contains(q.expression, "vector(0)") {
					q.leftOut = "nothing is wrong, and nobody is called"
				}
			}
			all = append(all, q)
		}
	}
	return all
}

// exposed are the labels of each metric that kferry's sources declare. What a process serves is less: a label's values come with trouble.
func exposed(t *testing.T) map[string][]string {
	t.Helper()
	all := maps.Clone(ofProcess)
	for _, m := range slices.Concat(connect.OfWorker(), connect.OfCoordinator(), connect.OfProcess()) {
		for _, name := range m.Names() {
			all[name] = []string{"connector", "source", "target", "topic", "partition", "group"}
		}
	}
	for _, folder := range []string{".", "../../coordinator", "../../functions", "../kafka"} {
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := goparser.ParseFile(token.NewFileSet(), name, nil, goparser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if call, is := n.(*ast.CallExpr); is {
					declared(call, all)
				}
				return true
			})
		}
	}
	return all
}

// declared notes a metric that a call like NewDesc("kferry_…", …, []string{…}) or NewCounterVec(CounterOpts{Name: "kferry_…"}, []string{…})
// makes: the first text in its first argument is the name, and what follows, but for sentences, are labels.
func declared(call *ast.CallExpr, to map[string][]string) {
	var name string
	var of []string
	for i, argument := range call.Args {
		ast.Inspect(argument, func(n ast.Node) bool {
			text, is := n.(*ast.BasicLit)
			if !is || text.Kind != token.STRING {
				return true
			}
			value, err := strconv.Unquote(text.Value)
			switch {
			case err != nil:
			case strings.HasPrefix(value, "kferry_") && i == 0:
				name = value
			case name != "" && !strings.Contains(value, " "): // unlike Help
				of = append(of, value)
			}
			return true
		})
	}
	if _, known := to[name]; name == "" || known && len(of) == 0 {
		return // an outer call, like MustRegister, sees the same text
	}
	to[name] = of
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		to[name+suffix] = append(of, "le")
	}
}

// Whatever the dashboard and the alerts ask for is exposed, with the labels that they select and group by.
func TestDashboardAndAlertsAskForWhatIsThere(t *testing.T) {
	there := exposed(t)
	expressions := map[string]string{}
	for _, q := range ownQueries(t) {
		expressions[q.expression] = "dashboard: " + q.panel
	}
	for name, rule := range alertRules(t) {
		expressions[rule.Expr] = "alert " + name
	}
	if len(expressions) < 20 {
		t.Fatalf("there are no more queries than %v", expressions)
	}
	for expression, of := range expressions {
		tree, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
		if err != nil {
			t.Errorf("%s: %v", of, err)
			continue
		}
		labelled := slices.Clone(ofTarget)
		parser.Inspect(tree, func(node parser.Node, _ []parser.Node) error {
			selector, is := node.(*parser.VectorSelector)
			if !is {
				return nil
			}
			known, is := there[selector.Name]
			if !is {
				t.Errorf("%s asks for %s, which nobody exposes", of, selector.Name)
			}
			labelled = append(labelled, known...)
			for _, m := range selector.LabelMatchers {
				if !slices.Contains(known, m.Name) && !slices.Contains(ofTarget, m.Name) {
					t.Errorf("%s selects %s by %s, which it has not", of, selector.Name, m.Name)
				}
				if m.Name == "reason" && m.Type != labels.MatchEqual {
					reasonsOf(t, of, m.Value)
				}
			}
			return nil
		})
		parser.Inspect(tree, func(node parser.Node, _ []parser.Node) error {
			if a, is := node.(*parser.AggregateExpr); is {
				for _, name := range a.Grouping {
					if !slices.Contains(labelled, name) {
						t.Errorf("%s groups by %s, which nothing has that it asks for", of, name)
					}
				}
			}
			return nil
		})
	}
}

// reasonsOf sees that a pattern like a|b lists reasons that there are.
func reasonsOf(t *testing.T, of, pattern string) {
	t.Helper()
	text, err := os.ReadFile("../lease/reason.go")
	if err != nil {
		t.Fatal(err)
	}
	for reason := range strings.SplitSeq(pattern, "|") {
		if !strings.Contains(string(text), strconv.Quote(reason)) {
			t.Errorf("%s asks for the reason %q, which there is not", of, reason)
		}
	}
}

// ownDashboard sees that each query of kferry's own dashboard finds data where all is well, but those that can't.
func ownDashboard(t *testing.T, known samples, at time.Time) {
	t.Helper()
	for _, q := range ownQueries(t) {
		found := known.query(t, q.expression, at)
		if len(found) == 0 && q.leftOut == "" {
			t.Errorf("%s finds nothing: %s", q.panel, q.expression)
		}
	}
}
