package cli_test

import (
	"bytes"
	"log/slog"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"
	"go.yaml.in/yaml/v3"
)

const prometheusFiles = "../../deploy/prometheus/"

// A rulesFile is what "promtool test rules" reads. Its own code brings what Prometheus discovers its targets with, so this is the part of
// it that alerts need, around Prometheus' engine, parsers and templates.
type rulesFile struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []rulesTest    `yaml:"tests"`
}

type rulesTest struct {
	Name        string         `yaml:"name"`
	Interval    model.Duration `yaml:"interval"`
	InputSeries []struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	} `yaml:"input_series"`
	Alerts []struct {
		EvalTime  model.Duration  `yaml:"eval_time"`
		Alertname string          `yaml:"alertname"`
		Expected  []expectedAlert `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
}

type expectedAlert struct {
	Labels      map[string]string `yaml:"exp_labels"`
	Annotations map[string]string `yaml:"exp_annotations"`
}

// alertRules are the rules of deploy/prometheus by their names.
func alertRules(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(prometheusFiles+"rules.yaml", false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	rules := map[string]rulefmt.Rule{}
	for _, g := range groups.Groups {
		for _, rule := range g.Rules {
			rules[rule.Alert] = rule
		}
	}
	return rules
}

// Every alert is met by a case where it fires, and by one where it doesn't.
func TestAlerts(t *testing.T) {
	text, err := os.ReadFile(prometheusFiles + "rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file rulesFile
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(file.RuleFiles, []string{"rules.yaml"}) {
		t.Errorf("the tests are of %q", file.RuleFiles)
	}
	rules := alertRules(t)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		t.Run(test.Name, func(t *testing.T) {
			known := test.series(t)
			for _, want := range test.Alerts {
				rule, there := rules[want.Alertname]
				if !there {
					t.Errorf("there is no alert %s", want.Alertname)
				}
				got := known.firing(t, rule, time.Duration(file.EvaluationInterval), time.Duration(want.EvalTime))
				if !slices.EqualFunc(got, want.Expected, func(a, b expectedAlert) bool {
					return maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
				}) {
					t.Errorf("%s after %s: %q\nwant %q", want.Alertname, want.EvalTime, got, want.Expected)
				}
				fires[want.Alertname] = fires[want.Alertname] || len(want.Expected) > 0
				silent[want.Alertname] = silent[want.Alertname] || len(want.Expected) == 0
			}
		})
	}
	for name := range rules {
		if !fires[name] || !silent[name] {
			t.Errorf("%s: a case where it fires: %v, where it does not: %v", name, fires[name], silent[name])
		}
	}
}

// began is when the series of a test begin.
var began = time.Unix(0, 0)

func (test rulesTest) series(t *testing.T) samples {
	t.Helper()
	known := samples{}
	for _, input := range test.InputSeries {
		of, values, err := parser.NewParser(parser.Options{}).ParseSeriesDesc(input.Series + " " + input.Values)
		if err != nil {
			t.Fatal(err)
		}
		series := &promql.Series{Metric: of}
		for i, v := range values {
			if !v.Omitted {
				series.Floats = append(series.Floats, promql.FPoint{T: began.Add(time.Duration(i) * time.Duration(test.Interval)).UnixMilli(), F: v.Value})
			}
		}
		known[of.String()] = series
	}
	return known
}

// firing evaluates a rule again and again, as Prometheus does, and returns the alerts that fire in the end.
func (s samples) firing(t *testing.T, rule rulefmt.Rule, interval, until time.Duration) (alerts []expectedAlert) {
	t.Helper()
	since := map[string]time.Duration{}
	var found promql.Vector
	for at := time.Duration(0); at <= until; at += interval {
		found = s.query(t, rule.Expr, began.Add(at))
		active := map[string]time.Duration{}
		for _, sample := range found {
			key := sample.Metric.String()
			active[key] = at
			if earlier, was := since[key]; was {
				active[key] = earlier
			}
		}
		since = active
	}
	slices.SortFunc(found, func(a, b promql.Sample) int { return labels.Compare(a.Metric, b.Metric) })
	for _, sample := range found {
		if until-since[sample.Metric.String()] >= time.Duration(rule.For) {
			alerts = append(alerts, alertOf(t, rule, sample, began.Add(until)))
		}
	}
	return alerts
}

func alertOf(t *testing.T, rule rulefmt.Rule, sample promql.Sample, at time.Time) expectedAlert {
	t.Helper()
	of := sample.Metric.Map()
	delete(of, model.MetricNameLabel)
	expand := func(texts map[string]string) map[string]string {
		all := map[string]string{}
		for name, text := range texts {
			e := template.NewTemplateExpander(t.Context(), `{{$labels := .Labels}}{{$value := .Value}}`+text, name,
				template.AlertTemplateData(of, nil, "", sample), model.TimeFromUnixNano(at.UnixNano()), nil, nil, nil)
			expanded, err := e.Expand()
			if err != nil {
				t.Fatal(err)
			}
			all[name] = expanded
		}
		return all
	}
	alert := expectedAlert{Labels: maps.Clone(of), Annotations: expand(rule.Annotations)}
	maps.Copy(alert.Labels, expand(rule.Labels))
	return alert
}
