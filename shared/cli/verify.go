package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
	"github.com/kferry/kferry/shared/verify"
)

// errNotComparable is a verdict that the command has already told.
var errNotComparable = errors.New("not comparable")

func newVerify(p Process) *cobra.Command {
	var format, topics, since, limit string
	cmd := &cobra.Command{
		Use:   "verify [A->B …]",
		Short: "Compare the copies with their sources, record by record",
		Long: "verify reads both sides and compares every record: key, value, headers, timestamp, order. It takes no part in copying, writes\n" +
			"nothing and may run while copying goes on: what is not yet copied is no difference. Without a flow it takes all. Exit codes:\n" +
			"0 equal, 1 different or stopped before the end, 3 not comparable (any more).",
		Example: "  kferry verify -f mirror.yaml\n  kferry verify 'A->B' -f mirror.yaml --topics 'orders,invoices-.*' --since 24h --rate 10MiB -o json",
	}
	in := newInput(p, cmd, "memory")
	cmd.Flags().StringVarP(&format, "output", "o", formats[0], "table or json")
	cmd.Flags().StringVar(&topics, "topics", "", "topics of the source to compare: regular expressions for whole names, separated by commas")
	cmd.Flags().StringVar(&since, "since", "", "only records of this time or later: 2026-11-24T08:00:00Z, milliseconds since 1970, or how long ago, like 36h")
	cmd.Flags().StringVar(&limit, "rate", "", "bytes a second to read at most, of both sides together, like 10MiB")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		if !slices.Contains(formats, format) {
			return usageError{fmt.Errorf("-o %q: give table or json", format)}
		}
		c, err := newComparison(topics, since, limit)
		if err != nil {
			return usageError{err}
		}
		return withFlows(cmd, in, names, func(st *station, flows []spec.Flow) error {
			c.station, c.flows = st, flows
			limitMemory(st.spec.Settings.Memory)
			r, unmatched, err := c.run(cmd.Context(), newScreen(p.Err))
			if err != nil {
				return err
			}
			for _, why := range unmatched {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %v\n", why)
			}
			out := r.Table
			if format == "json" {
				out = r.JSON
			}
			return conclude(cmd.OutOrStdout(), out, r.Verdict)
		})
	}
	return cmd
}

// conclude writes a report and turns its verdict into the command's outcome.
func conclude(to io.Writer, report func(io.Writer) error, v verify.Verdict) error {
	if err := report(to); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	switch v {
	case verify.Equal:
		return nil
	case verify.NotComparable:
		return errNotComparable
	}
	return errSaid
}

// A comparison is what one call of verify does.
type comparison struct {
	station  *station
	flows    []spec.Flow
	topics   spec.Patterns
	since    int64
	limit    *rate.Limiter
	progress verify.Progress
}

func newComparison(topics, since, limit string) (c *comparison, err error) {
	c = &comparison{}
	if c.topics, err = spec.ParsePatterns(topics); err != nil {
		return nil, fmt.Errorf("--topics %q: %w", topics, err)
	}
	if since != "" {
		if c.since, err = parseSince(since, time.Now()); err != nil {
			return nil, fmt.Errorf("--since %q: %w", since, err)
		}
	}
	if limit != "" {
		bytes, err := spec.ParseBytes(limit)
		if err != nil || bytes < leastRate {
			return nil, fmt.Errorf("--rate %q: give a number of bytes a second, at least %s, like 10MiB", limit, leastRate)
		}
		c.limit = rate.NewLimiter(rate.Limit(bytes), int(bytes))
	}
	return c, nil
}

// leastRate is below what one answer of a broker brings, and lasts a minute for it.
const leastRate = 16 * spec.KiB

// parseSince reads a time, and returns it in milliseconds.
func parseSince(text string, now time.Time) (int64, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return now.Add(-ago).UnixMilli(), nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if t, notTime := time.Parse(time.RFC3339, text); notTime == nil {
		ms, err = t.UnixMilli(), nil
	}
	switch {
	case err == nil && ms > now.UnixMilli():
		return 0, fmt.Errorf("that is later than now, %s, and no record would be compared; give a time that has passed", now.UTC().Format(time.RFC3339))
	case err == nil && ms > 0:
		return ms, nil
	}
	return 0, errors.New("give a time like 2026-11-24T08:00:00Z, milliseconds since 1970, or how long ago, like 36h")
}

// run compares one flow after the other. A pattern has to match a topic of one of them; for the others it says so.
func (c *comparison) run(ctx context.Context, screen *screen) (r verify.Report, unmatched []error, err error) {
	r.At = time.Now()
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watchComparison(watching, screen, &c.progress)
	}()
	defer func() { stop(); <-watched }()
	for _, f := range c.flows {
		report, err := c.compare(ctx, f)
		if errors.Is(err, verify.ErrNoTopic) {
			unmatched = append(unmatched, err)
			continue
		}
		if err != nil {
			return r, nil, err
		}
		r.Add(report)
	}
	if len(r.Flows) == 0 {
		return r, nil, usageError{errors.Join(unmatched...)}
	}
	return r, unmatched, nil
}

func (c *comparison) compare(ctx context.Context, f spec.Flow) (verify.FlowReport, error) {
	o := verify.Options{
		Flow: f, Source: c.station.clusters[f.SourceKey()], Target: c.station.clusters[f.TargetKey()],
		Topics: c.topics, Since: c.since, Limit: c.limit, Progress: &c.progress,
	}
	// Before the comparison asks for the target's ends, so that all that is claimed lies below them.
	known, err := lease.ReadMemory(ctx, f, o.Target)
	if err != nil {
		return verify.Unread(ctx, o, fmt.Errorf("target: %w", err)), nil
	}
	o.Claims = claims(known.Cursors)
	if o.Except, err = coordinator.NotCopied(ctx, f, c.station.clusters); err != nil {
		return verify.Unread(ctx, o, err), nil
	}
	r, err := verify.Compare(ctx, o)
	for _, g := range known.Gaps {
		if slices.ContainsFunc(r.Partitions, func(p verify.PartitionReport) bool { return p.SourceTopic == g.Topic && p.Partition == g.Partition }) {
			r.Gaps++
		}
	}
	return r, err
}

// claims are what the cursors say of how far the copies reach.
func claims(cursors map[kafka.TopicPartition]lease.Cursor) map[kafka.TopicPartition]verify.Claim {
	all := make(map[kafka.TopicPartition]verify.Claim, len(cursors))
	for tp, c := range cursors {
		id := c.SourceTopicID
		if strings.HasPrefix(id, "name:") { // a cluster without ids
			id = ""
		}
		all[tp] = verify.Claim{SourceTopicID: id, Offset: c.Offset}
	}
	return all
}

// watchComparison keeps a line on the screen until ctx ends.
func watchComparison(ctx context.Context, screen *screen, p *verify.Progress) {
	if !screen.terminal {
		return
	}
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	defer screen.show("")
	r := reading{at: time.Now()}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			screen.show(r.line(now, p))
		}
	}
}

// A reading turns a comparison's counters into a line for people.
type reading struct {
	at                      time.Time
	done, bytes             int64
	perSecond, bytesASecond float64
}

func (r *reading) line(now time.Time, p *verify.Progress) string {
	done, bytes, seconds := p.Done.Load(), p.Bytes.Load(), now.Sub(r.at).Seconds()
	r.perSecond = smooth(r.perSecond, float64(done-r.done)/seconds)
	r.bytesASecond = smooth(r.bytesASecond, float64(bytes-r.bytes)/seconds)
	r.done, r.bytes, r.at = done, bytes, now
	rest := max(0, p.Total.Load()-done)
	return fmt.Sprintf("%s records are equal · %s read, %s/s · %s offsets to go, %s",
		count(p.Records.Load()), bytesText(bytes), bytesText(int64(r.bytesASecond)), count(rest), left(rest, r.perSecond))
}
