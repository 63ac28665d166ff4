package cli_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// samples are what a Prometheus has scraped, by their labels. Its own engine answers queries over them.
type samples map[string]*promql.Series

// scrape takes in what a target answers, with the labels that its scrape configuration gives it.
func (s samples) scrape(t *testing.T, text string, at time.Time, target map[string]string) {
	t.Helper()
	exposition := expfmt.NewTextParser(model.UTF8Validation)
	families, err := exposition.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("no Prometheus reads this: %v\n%s", err, text)
	}
	options := &expfmt.DecodeOptions{Timestamp: model.TimeFromUnixNano(at.UnixNano())}
	for _, family := range families {
		vector, err := expfmt.ExtractSamples(options, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, sample := range vector {
			b := labels.NewBuilder(labels.EmptyLabels())
			for name, value := range sample.Metric {
				b.Set(string(name), string(value)) // an empty value is no label
			}
			for name, value := range target {
				b.Set(name, value)
			}
			of := b.Labels()
			if s[of.String()] == nil {
				s[of.String()] = &promql.Series{Metric: of}
			}
			series := s[of.String()]
			series.Floats = append(series.Floats, promql.FPoint{T: at.UnixMilli(), F: float64(sample.Value)})
		}
	}
}

// query asks at a time.
func (s samples) query(t *testing.T, expression string, at time.Time) promql.Vector {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: patience, Parser: parser.NewParser(parser.Options{})})
	defer engine.Close()
	q, err := engine.NewInstantQuery(t.Context(), s, nil, expression, at)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	defer q.Close()
	result := q.Exec(t.Context())
	if result.Err != nil {
		t.Fatalf("%s: %v", expression, result.Err)
	}
	vector, err := result.Vector()
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return slices.Clone(vector)
}

// Querier implements storage.Queryable.
func (s samples) Querier(_, _ int64) (storage.Querier, error) { return querier{s}, nil }

type querier struct{ samples }

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var found []storage.Series
	for _, s := range q.samples {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Metric.Get(m.Name)) }) {
			found = append(found, promql.NewStorageSeries(*s))
		}
	}
	slices.SortFunc(found, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return &seriesSet{found: found, at: -1}
}

func (querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	panic("no query asks for that")
}

func (querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	panic("no query asks for that")
}

func (querier) Close() error { return nil }

type seriesSet struct {
	found []storage.Series
	at    int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.found) }
func (s *seriesSet) At() storage.Series                { return s.found[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }
