package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// Bounds of a survey, which is made while somebody waits.
const (
	surveyTimeout = 30 * time.Second // for all that the clusters say
	queueTimeout  = 3 * time.Second  // for what the queue adds
	agesTimeout   = 10 * time.Second // for reading how old the first records are that wait
)

// A Survey is what `kferry status` shows.
type Survey struct {
	Name string    `json:"name"` // of the installation
	At   time.Time `json:"at"`
	// Queue says why failures and back-off are not shown; "" where they are.
	Queue string       `json:"queue,omitempty"`
	Flows []FlowSurvey `json:"flows"`
	// Scale is what coordinators have decided last; nil where the queue has no decision.
	Scale *Scale `json:"scale,omitempty"`

	// Colours has Table show in red what waits for somebody. Flags are those that name the input, for the commands that it shows.
	Colours bool   `json:"-"`
	Flags   string `json:"-"`
}

// A FlowSurvey is one flow's part of a Survey.
type FlowSurvey struct {
	Flow       string            `json:"flow"`
	Source     string            `json:"source"`
	Target     string            `json:"target"`
	State      spec.State        `json:"state"`            // that it is to be in
	Paused     bool              `json:"paused,omitempty"` // by command
	Error      string            `json:"error,omitempty"`  // why source and target can't be compared
	Reason     lease.Reason      `json:"reason,omitempty"` // of Error, where a cluster can't be spoken to
	Warnings   []string          `json:"warnings,omitempty"`
	Limits     []Limit           `json:"limits,omitempty"` // of what may be read in a second
	Partitions []PartitionSurvey `json:"partitions"`
	// Gaps are those that nobody has acknowledged.
	Gaps []lease.Gap `json:"gaps,omitempty"`
}

// A PartitionSurvey is one partition's part of a Survey.
type PartitionSurvey struct {
	SourceTopic string `json:"source_topic"`
	TargetTopic string `json:"target_topic"`
	Partition   int32  `json:"partition"`

	State  State        `json:"state"`
	Reason lease.Reason `json:"reason,omitempty"`
	Detail string       `json:"detail,omitempty"`
	// Decide is true where the partition stays held until a person decides. Decision is what goes on by itself: that of a person, which
	// a worker is about to carry out, or the flow's policy.
	Decide   bool           `json:"decide,omitempty"`
	Decision lease.Decision `json:"decision,omitempty"`
	Gaps     int            `json:"unacknowledged_gaps,omitempty"`
	Since    *time.Time     `json:"since,omitempty"`
	Next     *time.Time     `json:"next,omitempty"`   // the next try
	Worker   string         `json:"worker,omitempty"` // that ran it last

	Cursor     *int64   `json:"cursor"`      // the next source offset to look at; null before the first run
	SourceEnd  *int64   `json:"source_end"`  // as the flow's isolation level sees it; null where the source doesn't say
	TargetEnd  *int64   `json:"target_end"`  // null where the target has no such partition
	LagRecords *int64   `json:"lag_records"` // source offsets that are still to be looked at; null likewise
	LagSeconds *float64 `json:"lag_seconds"` // how old the first of them is; null where it can't be read

	OpenTransaction *OpenTransaction `json:"open_transaction,omitempty"` // that holds back what follows it

	ExactlyOnce *bool  `json:"exactly_once"`              // null before the first run
	WhyNot      string `json:"exactly_once_no,omitempty"` // why it is not
	Offsets     string `json:"offsets,omitempty"`         // identical or mapped
}

// An OpenTransaction is one that records of the source wait behind, under read_committed.
type OpenTransaction struct {
	LastStable int64 `json:"last_stable_offset"` // its first record's
	LogEnd     int64 `json:"log_end"`            // the high watermark
	Waiting    int64 `json:"waiting_records"`    // offsets between the two
	// ProducerID of who has it open, and Since when by that first record's timestamp; null where the record can't be read.
	ProducerID *int64     `json:"producer_id"`
	Since      *time.Time `json:"since"`
}

func (o OpenTransaction) String() string {
	text := fmt.Sprintf("%s behind an open transaction: last stable offset %d, log end %d", plural(int(o.Waiting), "record"), o.LastStable, o.LogEnd)
	if o.ProducerID != nil {
		text += fmt.Sprintf("; producer id %d has it open since %s", *o.ProducerID, o.Since.Format(time.RFC3339))
	}
	return text
}

// Status computes a survey from the clusters alone; where the queue answers it adds what only the queue knows. Nothing is written.
// o.Queue may be nil. A flow whose clusters don't answer says so and hides no other.
func Status(ctx context.Context, o Options) Survey {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	s := Survey{Name: o.Spec.Name, At: time.Now(), Flows: make([]FlowSurvey, len(o.Spec.Flows))}
	states, err := queueStates(ctx, o.Queue)
	if err != nil {
		s.Queue = err.Error()
	}
	if scale, known := LastScale(ctx, o.Queue); known {
		s.Scale = &scale
	}
	pairs, found, lanes, errs := discoverAll(ctx, o)
	var g errgroup.Group
	for i, p := range pairs {
		g.Go(func() error {
			s.Flows[i] = p.survey(ctx, o.Queue, found[i], states, lanes, errs[i])
			return nil
		})
	}
	_ = g.Wait() // errors are part of the survey
	return s
}

func queueStates(ctx context.Context, queue *lease.Queue) (map[lease.Task]lease.State, error) {
	if queue == nil {
		return nil, errors.New("none is given")
	}
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	states, err := queue.States(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the queue: %w", err)
	}
	return states, nil
}

// discoverAll looks at the topics of all flows, and where they lead, before any is judged by itself.
func discoverAll(ctx context.Context, o Options) (pairs []pair, found []topics, l *lanes, errs []error) {
	l = &lanes{}
	ids := &clusterIDs{clusters: o.Clusters}
	found, errs = make([]topics, len(o.Spec.Flows)), make([]error, len(o.Spec.Flows))
	var g errgroup.Group
	for i, f := range o.Spec.Flows {
		p := pair{flow: f, source: o.Clusters[f.SourceKey()], target: o.Clusters[f.TargetKey()], ids: ids}
		pairs = append(pairs, p)
		g.Go(func() error {
			found[i], errs[i] = p.discover(ctx)
			l.set(f, found[i].names())
			return nil
		})
	}
	_ = g.Wait() // each flow's error stays with the flow
	return pairs, found, l, errs
}

// survey is one flow's part.
func (p pair) survey(ctx context.Context, queue *lease.Queue, found topics, states map[lease.Task]lease.State, l *lanes, err error) FlowSurvey {
	s := FlowSurvey{Flow: p.flow.Name(), Source: p.flow.Source, Target: p.flow.Target, Warnings: found.warnings, Partitions: []PartitionSurvey{}}
	var plan Plan
	var ends map[kafka.TopicPartition]kafka.Offset
	known, forgotten := p.remember(ctx, queue, found)
	if err = errors.Join(err, forgotten); err == nil {
		found, err = p.hidden(ctx, found, known.Cursors)
	}
	if err == nil {
		plan, ends, err = p.plan(ctx, known, found, states, l)
	}
	if err != nil {
		s.Error, s.Reason = err.Error(), lease.Away(err)
		plan = blind(p.flow, found.source, known.Cursors, err)
	}
	s.State, s.Paused = View{Flow: p.flow, Paused: known.Paused}.wanted(), known.Paused
	if found.target != nil { // which knows them
		s.Limits, _ = p.limits(ctx, queue) // that it doesn't answer is told already
	}
	s.Gaps = slices.DeleteFunc(known.Gaps, func(g lease.Gap) bool { return !g.Open() })
	ctx, cancel := context.WithTimeout(ctx, agesTimeout)
	defer cancel()
	ages := p.ages(ctx, plan.Partitions, time.Now())
	open := p.openTransactions(ctx, plan.Partitions)
	s.Warnings = slices.Concat(s.Warnings, p.expiring(ctx, plan, ages), plan.cut(ends), p.unlike(ctx, found, known.Notes, states))
	for _, at := range plan.Partitions {
		s.Partitions = append(s.Partitions, at.survey(ends, ages, open[at.Source()]))
	}
	if failing := groupsFailing(p.flow, states); failing != "" {
		s.Warnings = append(s.Warnings, fmt.Sprintf("the consumer groups of %s are not brought up to date: %s", p.flow.Name(), failing))
	}
	s.countGaps()
	return s
}

// openTransactions looks for records that are hidden behind one, and reads who has it open. What can't be asked in time is left out: it
// explains why a copy waits and decides nothing.
func (p pair) openTransactions(ctx context.Context, partitions []Partition) map[kafka.TopicPartition]*OpenTransaction {
	if p.flow.Isolation != spec.ReadCommitted {
		return nil
	}
	var (
		mu   sync.Mutex // guards open
		open = map[kafka.TopicPartition]*OpenTransaction{}
	)
	ends := map[kafka.TopicPartition]int64{}
	for _, at := range partitions {
		if at.State != Failed && at.State != Gone {
			ends[at.Source()] = at.End
		}
	}
	watermarks := p.source.OffsetsNow(ctx, slices.Collect(maps.Keys(ends)), kafka.Latest, spec.ReadUncommitted)
	maps.DeleteFunc(ends, func(tp kafka.TopicPartition, end int64) bool {
		return watermarks[tp].Err != nil || watermarks[tp].Offset <= end
	})
	// Asked once more, since records that were only written between the two questions wait for nothing.
	stable := p.source.OffsetsNow(ctx, slices.Collect(maps.Keys(ends)), kafka.Latest, spec.ReadCommitted)
	var g errgroup.Group
	g.SetLimit(ageReads)
	for _, at := range partitions {
		end := watermarks[at.Source()]
		if still, asked := stable[at.Source()]; !asked || still.Err != nil || still.Offset != at.End {
			continue
		}
		g.Go(func() error {
			o := &OpenTransaction{LastStable: at.End, LogEnd: end.Offset, Waiting: end.Offset - at.End}
			if first, err := p.source.Written(ctx, at.Source(), at.End, spec.ReadUncommitted); err == nil {
				o.ProducerID, o.Since = &first.ProducerID, &first.At
			}
			mu.Lock()
			defer mu.Unlock()
			open[at.Source()] = o
			return nil
		})
	}
	_ = g.Wait() // see above
	return open
}

// countGaps says of each partition how many gaps it has.
func (f *FlowSurvey) countGaps() {
	for i := range f.Partitions {
		p := &f.Partitions[i]
		for _, g := range f.Gaps {
			if g.Topic == p.SourceTopic && g.Partition == p.Partition {
				p.Gaps++
			}
		}
	}
}

// plan is what a coordinator would decide now, and how far the copies reach.
func (p pair) plan(ctx context.Context, known lease.Memory, found topics, states map[lease.Task]lease.State, l *lanes) (Plan, map[kafka.TopicPartition]kafka.Offset, error) {
	view, err := p.view(ctx, found, known.Cursors, p.patiently)
	if err != nil {
		return Plan{}, nil, err
	}
	view.States, view.Collisions, view.Paused, view.Now = states, l.collisions(p.flow), known.Paused, time.Now()
	view.Back = provenance(nil).join(ctx, p, view)
	plan := Make(view)
	starts, ends, err := p.copies(ctx, plan, found)
	if err != nil {
		return Plan{}, nil, err
	}
	plan.holdUnknown(starts, ends)
	return plan, ends, nil
}

// remember reads the offsets topic, and prefers the queue's copy of a cursor where that is further: workers write to the topic only from
// time to time. Where the target doesn't answer, the queue's copies are all that is known.
func (p pair) remember(ctx context.Context, queue *lease.Queue, found topics) (known lease.Memory, err error) {
	recent := p.recent(ctx, queue)
	if found.target == nil {
		return lease.Memory{Cursors: recent}, nil
	}
	if known, err = lease.ReadMemory(ctx, p.flow, p.target); err != nil {
		return known, fmt.Errorf("target: cursors: %w", err)
	}
	for tp, c := range recent {
		was, ok := known.Cursors[tp]
		if same := was.Foreign && c.Foreign && was.Offset == c.Offset; !ok || c.Newer(was) && !was.Foreign || same { // with its hold
			known.Cursors[tp] = c
		}
	}
	return known, nil
}

// recent is the queue's copy of the cursors. That a queue doesn't answer is for Survey.Queue to say.
func (p pair) recent(ctx context.Context, queue *lease.Queue) map[kafka.TopicPartition]lease.Cursor {
	if queue == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	cursors, err := queue.Cursors(p.flow, p.target).All(ctx)
	if err != nil {
		return nil
	}
	return cursors
}

// copies asks the target where the copies begin and how far they reach.
func (p pair) copies(ctx context.Context, plan Plan, found topics) (starts, ends map[kafka.TopicPartition]kafka.Offset, err error) {
	var tps []kafka.TopicPartition
	for _, at := range plan.Partitions {
		if int(at.Partition) < len(found.target[at.Target].Partitions) {
			tps = append(tps, at.copied())
		}
	}
	if starts, err = p.target.ListOffsets(ctx, tps, kafka.Earliest, spec.ReadUncommitted); err != nil {
		return nil, nil, fmt.Errorf("target: starts: %w", err)
	}
	if ends, err = p.target.ListOffsets(ctx, tps, kafka.Latest, spec.ReadUncommitted); err != nil {
		return nil, nil, fmt.Errorf("target: ends: %w", err)
	}
	return starts, ends, nil
}

// holdUnknown marks the partitions that a worker would hold, or has held, because the target has records of unknown origin: without a
// cursor there is no place on the target to write that down, but the target shows it.
func (p *Plan) holdUnknown(starts, ends map[kafka.TopicPartition]kafka.Offset) {
	for i := range p.Partitions {
		at := &p.Partitions[i]
		start, end := starts[at.copied()], ends[at.copied()]
		if at.Begun && at.State == Copying && at.Cursor.Foreign {
			at.Detail = at.left()
		}
		if !at.Begun && at.State == Copying && start.Err == nil && end.Err == nil && start.Offset < end.Offset {
			at.hold(lease.ReasonNoCursor, fmt.Sprintf("%s holds the offsets %d to %d and has no cursor", at.copied(), start.Offset, end.Offset-1))
		}
	}
}

// left says what MirrorMaker has left of a partition that nobody has taken over yet.
func (p Partition) left() string {
	return fmt.Sprintf("MirrorMaker 2 wrote the position of %s last, at offset %d; a worker goes on where it stopped, or says why not", p.Source(), p.Cursor.Offset)
}

// cut warns of copies that are shorter than their cursors say. A worker holds them when the next record comes, and looks more closely: a
// leader that has just been elected may not show all yet.
func (p Plan) cut(ends map[kafka.TopicPartition]kafka.Offset) (warnings []string) {
	for _, at := range p.Partitions {
		end, known := ends[at.copied()]
		if at.Begun && at.State == Idle && !at.Cursor.Foreign && known && end.Err == nil && end.Offset < at.Cursor.Target {
			warnings = append(warnings, fmt.Sprintf("%s ends at offset %d, and %d were acknowledged: if that lasts, records are gone, and the next one to copy will be held",
				at.copied(), end.Offset, at.Cursor.Target))
		}
	}
	return warnings
}

// copied is the partition on the target.
func (p Partition) copied() kafka.TopicPartition {
	return kafka.TopicPartition{Topic: p.Target, Partition: p.Partition}
}

func (p Partition) survey(ends map[kafka.TopicPartition]kafka.Offset, ages map[kafka.TopicPartition]time.Duration, open *OpenTransaction) PartitionSurvey {
	s := PartitionSurvey{
		SourceTopic: p.Topic, TargetTopic: p.Target, Partition: p.Partition,
		State: p.State, Reason: p.Reason, Detail: p.Detail, Decide: p.Reason.Decide() && p.Decision == "", Decision: p.Decision,
		Since: moment(p.Since), Next: moment(p.Next), Worker: p.Worker,
		OpenTransaction: open,
	}
	if !p.Blind {
		s.SourceEnd, s.LagRecords = &p.End, &p.Lag
	}
	if open != nil && s.Detail == "" {
		s.Detail = open.String()
	}
	if p.Begun {
		exactly := p.Cursor.ExactlyOnce == ""
		s.Cursor, s.ExactlyOnce, s.WhyNot = &p.Cursor.Offset, &exactly, p.Cursor.ExactlyOnce
		s.Offsets = "identical"
		if p.Cursor.Mapped {
			s.Offsets = "mapped"
		}
	}
	if end, ok := ends[p.copied()]; ok && end.Err == nil {
		s.TargetEnd = &end.Offset
	}
	if age, ok := ages[p.Source()]; ok || p.Lag == 0 && p.State != Failed {
		seconds := age.Seconds()
		s.LagSeconds = &seconds
	}
	return s
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
