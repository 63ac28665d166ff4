package coordinator

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A View is what was seen of a flow at one moment: everything a plan depends on.
type View struct {
	Flow   spec.Flow
	Source []kafka.Topic          // the topics that the flow selects
	Target map[string]kafka.Topic // by name
	// Ends of the source's partitions, as the flow's isolation level sees them. Starts of those without a cursor.
	Ends, Starts map[kafka.TopicPartition]kafka.Offset
	Cursors      map[kafka.TopicPartition]lease.Cursor
	States       map[lease.Task]lease.State // by Task.Identity
	// Collisions names, for a source topic, everything that leads into its target topic where that is more than one.
	Collisions map[string]string
	// Unlike are the source topics whose copies differ in settings or rights.
	Unlike map[string]bool
	Paused bool // by command
	// Unattended is that no worker is there.
	Unattended bool
	// Back are the source topics that come from the target, or may.
	Back map[string]Comeback
	Now  time.Time

	task lease.Task // what every task of the flow has in common
}

// A Plan is what there is to do for a flow, and where each of its partitions stands.
type Plan struct {
	State      spec.State   // that the flow is to be in; in any but Running there is nothing to do
	Tasks      []lease.Task // due now; those that run already are among them, the queue knows
	Partitions []Partition  // by topic and partition
}

// A State is what a partition is at.
type State string

// The states of a partition.
const (
	Idle    State = "idle"    // examined up to the source's end
	Copying State = "copying" // behind, and offered to workers
	Waiting State = "waiting" // behind; the last run failed and the next try has its time
	Missing State = "missing" // its target partition is about to be created
	Held    State = "held"    // stands still for a reason that somebody has to remove
	Failed  State = "failed"  // a cluster doesn't answer for it
	Gone    State = "gone"    // has a cursor and is no longer on the source; its copy stays
	Paused  State = "paused"  // behind, and the flow is paused or stopped
	Cycle   State = "cycle"   // comes from the target, and is not copied back
)

// A Partition says where one partition of a flow stands.
type Partition struct {
	Topic, Target string // names on the source and on the target
	Partition     int32
	State         State
	Reason        lease.Reason // of Held, and of Failed where a whole cluster doesn't answer
	Detail        string       // what went wrong and what to do
	Next          time.Time    // when Waiting or Held is tried again; zero where a decision is needed first
	Since         time.Time    // since when it is Held, or every try has failed
	Worker        string       // that ran it last, where its state names one
	Due           bool         // its task is offered now
	Changed       bool         // one of its topics isn't the one that the cursor was written for: a worker has to look
	Begun         bool         // Cursor is valid
	Cursor        lease.Cursor
	Offset        int64 // the next source offset to look at
	End           int64 // the source's end
	Lag           int64 // offsets to look at
	Blind         bool  // the source doesn't say where it ends; End and Lag are those of the cursor
	// Decision is what becomes of a hold that would wait for a person: what one has decided, else the flow's policy; "" is to wait.
	Decision lease.Decision
}

// Source is the partition on the source.
func (p Partition) Source() kafka.TopicPartition {
	return kafka.TopicPartition{Topic: p.Topic, Partition: p.Partition}
}

// Make compares source, target and cursors, and says what there is to do.
func Make(v View) Plan {
	v.task = lease.Task{Flow: v.Flow.Name(), Digest: v.Flow.Digest()}
	p := Plan{State: v.wanted()}
	if p.State == spec.Absent {
		return p
	}
	for _, topic := range v.Source {
		p.topic(v, topic)
	}
	p.gone(v)
	p.sort()
	if p.State != spec.Running {
		p.pause()
	}
	return p
}

// wanted is the state that the flow is to be in.
func (v View) wanted() spec.State {
	if v.Paused && v.Flow.State == spec.Running {
		return spec.Paused
	}
	return v.Flow.State
}

// blind is the plan of a flow that can't be compared, because of why: of all that is known to be there, and nothing to do.
func blind(f spec.Flow, source []kafka.Topic, cursors map[kafka.TopicPartition]lease.Cursor, why error) Plan {
	v := View{Flow: f, Source: source, Cursors: cursors}
	p := Plan{State: v.wanted()}
	if p.State == spec.Absent {
		return p
	}
	for _, topic := range source {
		p.everyPartition(v, topic, f.RemoteTopic(topic.Name), func(*Partition) {})
	}
	p.gone(v) // where the source says nothing, that is all that has a cursor
	for i := range p.Partitions {
		at := &p.Partitions[i]
		at.Blind = true
		if at.fail(why); at.State == Failed {
			at.Reason = cmp.Or(lease.Away(why), lease.ReasonUnreachable)
		}
		if held := at.Cursor.Hold; held.Reason.Decide() {
			at.hold(held.Reason, held.Detail)
			at.Since, at.Decision = held.Since, at.decision(f, held.Reason)
		}
	}
	p.sort()
	return p
}

func (p *Plan) sort() {
	slices.SortFunc(p.Partitions, func(a, b Partition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}

// topic plans the partitions of one topic, and the task that makes room for them on the target where it lacks some, or makes the copy like
// its source.
func (p *Plan) topic(v View, topic kafka.Topic) {
	target := v.Flow.RemoteTopic(topic.Name)
	if reason, detail := refuse(v, topic.Name, target); reason != "" {
		p.everyPartition(v, topic, target, func(at *Partition) { at.hold(reason, detail) })
		return
	}
	if topic.Err != nil {
		p.everyPartition(v, topic, target, func(at *Partition) { at.fail(topic.Err) })
		return
	}
	if back, is := v.Back[topic.Name]; is {
		p.everyPartition(v, topic, target, func(at *Partition) { at.comeBack(back) })
		return
	}
	room := v.Target[target]
	if room.Err != nil {
		p.everyPartition(v, topic, target, func(at *Partition) { at.fail(fmt.Errorf("target topic %q: %w", target, room.Err)) })
		return
	}
	lost := v.lost(topic, len(room.Partitions))
	if lacks := len(room.Partitions) < len(topic.Partitions); (lacks || v.Unlike[topic.Name]) && !lost {
		p.offer(v, v.topicsTask(topic.Name))
	}
	p.everyPartition(v, topic, target, func(at *Partition) {
		switch {
		case int(at.Partition) < len(room.Partitions):
			p.mirror(v, topic.ID, room.ID, at)
		case at.Begun && at.decision(v.Flow, lease.ReasonTargetRecreated) != "":
			if at.await(v, len(room.Partitions)); at.State != Held { // by what keeps the topic from being created
				at.Decision = at.decision(v.Flow, lease.ReasonTargetRecreated)
			}
		case at.Begun:
			at.hold(lease.ReasonTargetRecreated, fmt.Sprintf("%q on %s was copied to and is gone; it is not created again, and copied to as before if the same one comes back", target, v.Flow.Target))
		case lost:
			at.hold(lease.ReasonTopicMissing, fmt.Sprintf("%q on %s is created once it is decided how the partitions go on that were copied to it", target, v.Flow.Target))
		default:
			at.await(v, len(room.Partitions))
		}
	})
}

// lost says whether a partition that had been copied to is missing on the target, where only the first exist, and nobody has decided to go
// on without. Once one is decided the topic is created for all; the others' cursors still say that theirs is not the one they knew.
func (v View) lost(topic kafka.Topic, exist int) (lost bool) {
	for i := exist; i < len(topic.Partitions); i++ {
		at := v.partition(topic.Name, "", int32(i))
		if at.Begun && at.decision(v.Flow, lease.ReasonTargetRecreated) != "" {
			return false
		}
		lost = lost || at.Begun
	}
	return lost
}

// decision is what becomes of a hold for a reason, see Partition.Decision.
func (at *Partition) decision(f spec.Flow, reason lease.Reason) lease.Decision {
	if at.Cursor.Hold.Reason == reason && at.Cursor.Decision != "" {
		return at.Cursor.Decision
	}
	return lease.Policy(f, reason)
}

// refuse says why a topic must not be copied at all.
func refuse(v View, topic, target string) (lease.Reason, string) {
	if err := mm2.CheckTopicName(target); err != nil {
		return lease.ReasonTopicName, fmt.Sprintf("the copy of %q can't have that name: %v; shorten the alias of the source, exclude the topic, or set another replication policy", topic, err)
	}
	if all := v.Collisions[topic]; all != "" {
		return lease.ReasonTopicCollision, fmt.Sprintf("%s all lead into %q on %s; exclude the topic from all flows but one, or set another replication policy",
			all, target, v.Flow.Target)
	}
	return "", ""
}

func (p *Plan) everyPartition(v View, topic kafka.Topic, target string, decide func(*Partition)) {
	p.Partitions = slices.Grow(p.Partitions, len(topic.Partitions))
	for i := range topic.Partitions {
		at := v.partition(topic.Name, target, int32(i))
		decide(&at)
		p.Partitions = append(p.Partitions, at)
	}
}

// partition fills in what is known of a partition before anything is decided.
func (v View) partition(topic, target string, partition int32) Partition {
	tp := kafka.TopicPartition{Topic: topic, Partition: partition}
	at := Partition{Topic: topic, Target: target, Partition: partition}
	at.Cursor, at.Begun = v.Cursors[tp]
	at.Offset = v.Starts[tp].Offset
	if at.Begun {
		at.Offset = at.Cursor.Offset
	}
	at.End, at.Blind = at.Offset, true
	if end, known := v.Ends[tp]; known && end.Err == nil {
		at.End, at.Blind = end.Offset, false
	}
	at.Lag = max(0, at.End-at.Offset)
	return at
}

// mirror decides about a partition whose target partition exists.
func (p *Plan) mirror(v View, source, target kafka.TopicID, at *Partition) {
	task := v.mirrorTask(at.Topic, at.Partition)
	state, held := v.state(task), at.Cursor.Hold
	at.Worker = state.Worker
	switch {
	case at.Begun && held.Reason.Decide():
		at.hold(held.Reason, held.Detail)
		at.Since = held.Since
		if at.Decision = at.decision(v.Flow, held.Reason); at.Decision != "" {
			if state.Detail != "" && state.Reason != held.Reason {
				at.Detail += "; " + state.Detail
			}
			at.Next = v.next(state)
			at.Due = p.offer(v, task)
		}
		return
	case state.Held:
		at.hold(state.Reason, state.Detail)
		at.Decision = at.decision(v.Flow, state.Reason)
		at.Since, at.Next = state.Since, v.next(state)
		at.Due = p.offer(v, task)
		return
	case at.Begun && at.Cursor.Held(): // all that is left of it when the queue's memory is gone
		at.hold(held.Reason, held.Detail)
		at.Since, at.Next = held.Since, v.next(state)
		at.Due = p.offer(v, task)
		return
	}
	if err := v.unknown(at); err != nil {
		at.fail(err)
		return
	}
	at.Changed = replaced(at, source, target)
	if !at.Changed && v.patient(at) {
		at.End, at.Lag = at.Offset, 0 // nobody waits for them
	}
	if !v.behind(at) && !at.Changed {
		at.State = Idle
		return
	}
	at.State = Copying
	at.retry(v, state)
	at.Due = p.offer(v, task)
}

// retry tells of the tries that failed, and of the time of the next one where that is still to come.
func (at *Partition) retry(v View, state lease.State) {
	at.Since = state.Since
	if state.Detail != "" {
		at.Detail = state.Detail
	}
	if next := v.next(state); next.After(v.Now) {
		at.State, at.Next = Waiting, next
	}
}

// unknown is why the source's end or start of a partition is not known.
func (v View) unknown(at *Partition) error {
	end, asked := v.Ends[at.Source()]
	switch {
	case !asked:
		return fmt.Errorf("the source has not said where %s ends", at.Source())
	case end.Err != nil:
		return fmt.Errorf("end of %s on the source: %w", at.Source(), end.Err)
	case v.Starts[at.Source()].Err != nil:
		return fmt.Errorf("start of %s on the source: %w", at.Source(), v.Starts[at.Source()].Err)
	}
	return nil
}

// behind says whether a worker would find something to do. A cursor beyond the source's end is a log that lost records: the worker
// finds out and says so. A flow that starts at the latest record needs its cursor before the first record comes, an empty partition
// of any other flow needs none.
func (v View) behind(at *Partition) bool {
	if !at.Begun && v.Flow.Start == spec.Latest {
		return true
	}
	return at.End != at.Offset
}

// heartbeatsEvery is how often heartbeats are copied. They come every second, and would keep a lease, and so a worker, for ever.
const heartbeatsEvery = 30 * time.Second

// patient says whether a partition holds heartbeats, the last of which was copied not long ago. Its time is by the clock of who wrote it;
// one that is far from ours, either way, costs a run in every pass. While no worker is there they wait, or they would call for one for ever.
func (v View) patient(at *Partition) bool {
	if !at.Begun || !mm2.Heartbeats(v.Flow.Policy, at.Topic) {
		return false
	}
	return v.Unattended || at.Cursor.Timestamp >= 0 && v.Now.Sub(time.UnixMilli(at.Cursor.Timestamp)).Abs() < heartbeatsEvery
}

// replaced says whether one of the topics is another one than the cursor was written for, which the ends alone may not show.
func replaced(at *Partition, source, target kafka.TopicID) bool {
	return at.Begun && (differs(at.Cursor.SourceTopicID, source) || differs(at.Cursor.TargetTopicID, target))
}

func differs(known string, is kafka.TopicID) bool {
	return known != "" && !is.Zero() && known != is.String()
}

// await decides about a partition whose target partition doesn't exist: the topics task will make it, or says why it can't.
func (at *Partition) await(v View, exist int) {
	state := v.state(v.topicsTask(at.Topic))
	at.Worker = state.Worker
	if state.Held {
		at.hold(state.Reason, state.Detail)
		at.Since, at.Next = state.Since, v.next(state)
		return
	}
	at.State = Missing
	at.Detail = fmt.Sprintf("%q has %s on the target so far", at.Target, plural(exist, "partition"))
	at.retry(v, state)
}

func (at *Partition) hold(reason lease.Reason, detail string) {
	at.State, at.Reason, at.Detail = Held, reason, detail
}

func (at *Partition) comeBack(c Comeback) {
	if c.Err != nil {
		at.fail(c.Err)
		return
	}
	at.State, at.Detail, at.Lag = Cycle, c.Why, 0
}

// fail is about what can't be known. What a cluster refuses to tell waits for a right, not for the cluster.
func (at *Partition) fail(err error) {
	at.State, at.Detail = Failed, err.Error()
	if kafka.Denied(err) {
		at.hold(lease.ReasonAuthorization, err.Error())
	}
}

// gone lists the partitions that were copied and are no longer on the source. A filter that no longer selects a topic is no news.
func (p *Plan) gone(v View) {
	partitions, hidden := map[string]int{}, map[string]error{}
	for _, topic := range v.Source {
		partitions[topic.Name], hidden[topic.Name] = len(topic.Partitions), topic.Err
	}
	for tp, cursor := range v.Cursors {
		if int(tp.Partition) < partitions[tp.Topic] || !v.Flow.Selects(tp.Topic) {
			continue
		}
		at := Partition{
			Topic: tp.Topic, Target: v.Flow.RemoteTopic(tp.Topic), Partition: tp.Partition, State: Gone,
			Detail: "no longer on the source; its copy stays",
			Begun:  true, Cursor: cursor, Offset: cursor.Offset, End: cursor.Offset,
		}
		if err := hidden[tp.Topic]; err != nil {
			at.fail(err)
		}
		p.Partitions = append(p.Partitions, at)
	}
}

// offer adds a task unless its next try is still to come.
func (p *Plan) offer(v View, task lease.Task) bool {
	if v.next(v.state(task)).After(v.Now) {
		return false
	}
	p.Tasks = append(p.Tasks, task)
	return true
}

// pause takes back what was planned for a flow that is not to run.
func (p *Plan) pause() {
	p.Tasks = nil
	for i := range p.Partitions {
		p.Partitions[i].Due = false
		if s := p.Partitions[i].State; s == Copying || s == Waiting || s == Missing {
			p.Partitions[i].State = Paused
		}
	}
}

func (v View) state(task lease.Task) lease.State { return v.States[task.Identity()] }

// next is when a task is to be tried again. The worker that said so went by its own clock: what no back-off comes to, with some room
// for clocks that differ a little, is the work of a clock that was set, and the task is due.
func (v View) next(s lease.State) time.Time {
	if s.Next.Sub(v.Now) > 2*lease.LongestWait {
		return v.Now
	}
	return s.Next
}

func (v View) mirrorTask(topic string, partition int32) lease.Task {
	v.task.Kind, v.task.Topic, v.task.Partition = lease.KindMirror, topic, partition
	v.task.Brief = mm2.Heartbeats(v.Flow.Policy, topic)
	return v.task
}

func (v View) topicsTask(topic string) lease.Task {
	v.task.Kind, v.task.Topic, v.task.Partition = lease.KindTopics, topic, -1
	return v.task
}
