// Command bench measures what copying costs: kferry against a plain franz-go program that consumes and produces, on the same data, in
// the same run, on real brokers; and what it costs to verify the copy, against a program that only reads both sides. Each copier is a process of its own, so that its CPU seconds and its peak memory are the operating
// system's figures. Read the ratios: the seconds belong to the machine.
//
//	go run ./integration/bench [-runs 3] [-set NAME] [-scale 1.0]
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/integration/testbed"
)

// A set is data to copy.
type set struct {
	name       string
	records    int
	valueBytes int
	batchBytes int32
	codec      string
	bar        float64 // most of plain's CPU that kferry may take
}

var sets = []set{
	{"1KB-in-1MB-lz4", 2_000_000, 1000, 1 << 20, "lz4", 0.2},
	{"1KB-in-16KB-lz4", 1_000_000, 1000, 16 << 10, "lz4", 1},
	{"200B-in-2KB-none", 2_000_000, 200, 2 << 10, "none", 1},
}

const (
	partitions  = 8
	copyWithin  = 5 * time.Minute
	memoryBar   = 128 << 20
	sourceAlias = "source"
	sampleEvery = 20 * time.Millisecond

	bare    = "kferry"
	overTLS = "kferry, TLS" // on both sides
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "plain" {
		exit(plain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "read" {
		exit(read(os.Args[2:]))
	}
	runs := flag.Int("runs", 3, "copies by each copier, in turn")
	only := flag.String("set", "", "only the set of this name")
	scale := flag.Float64("scale", 1, "share of the records")
	flag.Parse()
	chosen, err := choose(*only)
	if err != nil {
		exit(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var results, proofs []result
	err = testbed.Program(ctx, func(t testbed.T) {
		authority := testbed.NewAuthority(t, "bench")
		source := testbed.Kafka(t, testbed.V43, testbed.WithHeap("1g"), testbed.Lasting(), testbed.WithSecurity(authority))
		target := testbed.Kafka(t, testbed.V43, testbed.WithHeap("1g"), testbed.Lasting(), testbed.WithSecurity(authority))
		for _, s := range chosen {
			s.records = int(float64(s.records) * *scale)
			copies, compared := s.measure(t, source, target, *runs)
			results, proofs = append(results, copies...), append(proofs, compared...)
		}
	})
	print(results)
	printProofs(proofs)
	exit(cmp.Or(err, verdict(results)))
}

// choose is the set of a name, or all of them.
func choose(name string) ([]set, error) {
	if name == "" {
		return sets, nil
	}
	var names []string
	for _, s := range sets {
		if s.name == name {
			return []set{s}, nil
		}
		names = append(names, s.name)
	}
	return nil, fmt.Errorf("-set %s: there are %s", name, strings.Join(names, ", "))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// result is the median of one copier's runs over one set.
type result struct {
	set    set
	copier string
	cpu    time.Duration
	wall   time.Duration
	peak   int64
}

// measure lets the copiers take turns, so that both meet the same moods of the machine, and then compares the last copy.
func (s set) measure(t testbed.T, source, target *testbed.Cluster, runs int) (copies, proofs []result) {
	topic := strings.ToLower(s.name)
	source.CreateTopic(topic, partitions, 1)
	testbed.Produce(t, source, topic, testbed.Load{
		Records: s.records, ValueBytes: s.valueBytes, BatchBytes: s.batchBytes, Codec: codec(s.codec), PlainKeys: true,
	})
	var plain, kferry, secured []result
	for i := range runs {
		copied := fmt.Sprintf("plain-%d.%s", i, topic)
		target.CreateTopic(copied, partitions, 1)
		plain = append(plain, s.run(t, "plain", target, copied, func() *testbed.Process {
			return testbed.Exec(t, self(t), []string{"plain", source.Bootstrap(), topic, target.Bootstrap(), copied, s.codec, fmt.Sprint(s.records)}, nil)
		}))
		remove(t, target, copied)

		alias := fmt.Sprintf("%s-%d", sourceAlias, i)
		copied = alias + "-tls." + topic
		secured = append(secured, s.run(t, overTLS, target, copied, func() *testbed.Process {
			return mirror(t, source.Over(testbed.TLS), target.Over(testbed.TLS), topic, alias+"-tls", trusting(t, source))
		}))
		remove(t, target, copied)
		copied = alias + "." + topic
		kferry = append(kferry, s.run(t, bare, target, copied, func() *testbed.Process {
			return mirror(t, source, target, topic, alias, nil)
		}))
		if i == runs-1 { // when nothing is measured any more
			testbed.Compare(t, source, topic, target, copied)
			proofs = s.prove(t, source, topic, target, alias, runs)
		}
		remove(t, target, copied)
	}
	return []result{median(plain), median(kferry), median(secured)}, proofs
}

// mirror is kferry that copies a topic, and ends.
func mirror(t testbed.T, source, target *testbed.Cluster, topic, alias string, more map[string]string) *testbed.Process {
	environ := map[string]string{
		"KFERRY_SOURCE_ALIAS": alias, "KFERRY_SOURCE_BOOTSTRAP_SERVERS": source.Bootstrap(),
		"KFERRY_TARGET_ALIAS": "target", "KFERRY_TARGET_BOOTSTRAP_SERVERS": target.Bootstrap(),
		"KFERRY_TOPICS": topic, "KFERRY_HTTP": "off",
	}
	maps.Copy(environ, more)
	return testbed.Run(t, []string{"run", "--until-caught-up", "--data", t.TempDir()}, environ)
}

// trusting has both sides speak TLS with brokers of the cluster's authority.
func trusting(t testbed.T, c *testbed.Cluster) map[string]string {
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, c.Authority().PEM(), 0o600); err != nil {
		t.Fatalf("authority: %v", err)
	}
	return map[string]string{
		"KFERRY_SOURCE_SECURITY_PROTOCOL": "SSL", "KFERRY_SOURCE_TLS_CA_FILE": file,
		"KFERRY_TARGET_SECURITY_PROTOCOL": "SSL", "KFERRY_TARGET_TLS_CA_FILE": file,
	}
}

func self(t testbed.T) string {
	path, err := os.Executable()
	if err != nil {
		t.Fatalf("find this program: %v", err)
	}
	return path
}

func remove(t testbed.T, target *testbed.Cluster, topic string) {
	if _, err := target.Admin().DeleteTopics(t.Context(), topic); err != nil {
		t.Fatalf("delete %s: %v", topic, err)
	}
}

// run measures one copy and checks that it is as long as its source.
func (s set) run(t testbed.T, copier string, target *testbed.Cluster, copied string, start func() *testbed.Process) result {
	began := time.Now()
	p := start()
	peak := watchPeak(p.Pid())
	if code := p.Wait(copyWithin); code != 0 {
		t.Fatalf("%s on %s: exit code %d:\n%s", copier, s.name, code, p.Output())
	}
	wall := time.Since(began)
	var records int64
	for _, end := range target.Ends(copied) {
		records += end
	}
	if records != int64(s.records) {
		t.Fatalf("%s on %s: copied %d of %d records", copier, s.name, records, s.records)
	}
	r := result{set: s, copier: copier, cpu: p.CPU(), wall: wall, peak: <-peak}
	t.Logf("%s %s: %.2f CPU-s, %.2f s, %d MiB", s.name, copier, r.cpu.Seconds(), r.wall.Seconds(), r.peak>>20)
	return r
}

// watchPeak follows a process's peak memory to its end. What the system reports of an ended one would not do: that includes the memory
// of whoever started it.
func watchPeak(pid int) <-chan int64 {
	peak := make(chan int64, 1)
	go func() {
		var last int64
		for {
			u, err := testbed.UsageOf(pid)
			if err != nil {
				peak <- last
				return
			}
			last = max(last, u.PeakRSSBytes)
			time.Sleep(sampleEvery)
		}
	}()
	return peak
}

func median(rs []result) result {
	m := rs[0]
	m.cpu = middle(rs, func(r result) time.Duration { return r.cpu })
	m.wall = middle(rs, func(r result) time.Duration { return r.wall })
	m.peak = slices.MaxFunc(rs, func(a, b result) int { return cmp.Compare(a.peak, b.peak) }).peak
	return m
}

func middle(rs []result, of func(result) time.Duration) time.Duration {
	var ds []time.Duration
	for _, r := range rs {
		ds = append(ds, of(r))
	}
	slices.Sort(ds)
	return ds[len(ds)/2]
}

func print(results []result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "data\tcopier\tCPU-s\tof plain\twall s\tpeak MiB\t")
	var plain result
	for _, r := range results {
		if r.copier == "plain" {
			plain = r
		}
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.2f\t%d\t\n", r.set.name, r.copier, r.cpu.Seconds(), r.cpu.Seconds()/plain.cpu.Seconds(), r.wall.Seconds(), r.peak>>20)
	}
	_ = w.Flush()
}

// verdict holds kferry's results against the bars.
func verdict(results []result) error {
	var plain result
	for _, r := range results {
		switch {
		case r.copier == "plain":
			plain = r
		case r.copier == bare && r.cpu.Seconds() > r.set.bar*plain.cpu.Seconds():
			return fmt.Errorf("%s: kferry took %.2f of plain's CPU, the bar is %.2f", r.set.name, r.cpu.Seconds()/plain.cpu.Seconds(), r.set.bar)
		case r.peak > memoryBar:
			return fmt.Errorf("%s: kferry's peak memory was %d MiB, the bar is %d", r.set.name, r.peak>>20, memoryBar>>20)
		}
	}
	return nil
}

func codec(name string) kgo.CompressionCodec {
	if name == "lz4" {
		return kgo.Lz4Compression()
	}
	return kgo.NoCompression()
}
