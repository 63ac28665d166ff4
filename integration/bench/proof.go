package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"text/tabwriter"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/integration/testbed"
)

// prove measures what it costs to compare a copy with its source, against a plain program that only reads both.
func (s set) prove(t testbed.T, source *testbed.Cluster, topic string, target *testbed.Cluster, alias string, runs int) []result {
	copied := alias + "." + topic
	var plain, kferry []result
	for range runs {
		plain = append(plain, s.run(t, "reading", target, copied, func() *testbed.Process {
			return testbed.Exec(t, self(t), []string{"read", source.Bootstrap(), topic, target.Bootstrap(), copied, fmt.Sprint(s.records)}, nil)
		}))
		kferry = append(kferry, s.run(t, "verify", target, copied, func() *testbed.Process {
			return testbed.Run(t, []string{"verify"}, map[string]string{
				"KFERRY_SOURCE_ALIAS": alias, "KFERRY_SOURCE_BOOTSTRAP_SERVERS": source.Bootstrap(),
				"KFERRY_TARGET_ALIAS": "target", "KFERRY_TARGET_BOOTSTRAP_SERVERS": target.Bootstrap(), "KFERRY_TOPICS": topic,
			})
		}))
	}
	return []result{median(plain), median(kferry)}
}

// read consumes two topics, with franz-go's own settings, and looks at nothing.
func read(args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("read takes SOURCE TOPIC TARGET TOPIC RECORDS, not %q", args)
	}
	records, err := strconv.ParseInt(args[4], 10, 64)
	if err != nil {
		return fmt.Errorf("number of records: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), copyWithin)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return consume(ctx, args[0], args[1], records) })
	g.Go(func() error { return consume(ctx, args[2], args[3], records) })
	return g.Wait()
}

func consume(ctx context.Context, servers, topic string, records int64) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(servers), kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	defer client.Close()
	for read := int64(0); read < records; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		read += int64(fetches.NumRecords())
	}
	return nil
}

// printProofs is for what has no bar: reading and verify, in pairs.
func printProofs(results []result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "data\tcomparison\tCPU-s\tof reading\twall s\tMB/s\tpeak MiB\t")
	var plain result
	for _, r := range results {
		if r.copier == "reading" {
			plain = r
		}
		bytes := 2 * float64(r.set.records) * float64(r.set.valueBytes)
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.0f\t%d\t\n", r.set.name, r.copier, r.cpu.Seconds(), r.cpu.Seconds()/plain.cpu.Seconds(),
			r.wall.Seconds(), bytes/1e6/r.wall.Seconds(), r.peak>>20)
	}
	_ = w.Flush()
}
