// Package lease is how processes that copy records agree on who does what: tasks on a NATS JetStream work queue, leases on them,
// and the cursors that say how far each partition is.
//
// # Who may be trusted
//
// A lease makes work efficient, not correct. JetStream does not fence acknowledgements: a holder whose lease expired can still
// acknowledge, and thereby free a lease that somebody else holds. So two workers may at times run one task, and what they do must
// be exact all the same:
//
//   - Between workers, the target's broker decides: it lets in one of two batches with the same sequence.
//   - Between cursors, the revision decides: Commit is a compare-and-set on the revision that the holder read when its run began.
//     Who loses gets ErrLost, and its run ends. This is the only way to learn that a lease is gone: extending a message that a
//     stale acknowledgement removed succeeds in silence.
//   - The target's log is right about what landed. A cursor only says where to begin to look; one that was ever true stays true,
//     so an old one costs time, never records.
//
// Delivery counts and stream sequences are for logs. They begin anew when NATS loses its store.
//
// # A lease's life
//
// A task's message exists while there is work, so the number of waiting messages is the load:
//
//	        Offer            Claim               Release
//	absent ───────► offered ───────► held(n) ──────────────► absent
//	  ▲                ▲              │  ▲ │
//	  │                │              │  └─┘ Extend (every second)
//	  │                │   expired: no Extend for a lease time
//	  │                └──── n+1 ◄────┤
//	  │                               │
//	  └── Release of a stale holder, ─┘ which nobody is told: held in the eyes of its holder only, until its next Commit
//
// Offering a task that is offered or held is refused by the server, so any number of coordinators may offer whatever is behind.
// A task lost on the way is offered again when somebody next compares source and cursor. To hand work back, a holder releases
// and offers again (HandBack), which puts the task behind all that wait; a negative acknowledgement would put it before them.
//
// # How long a holder may trust
//
// A lease lasts LeaseTime on the server, from the delivery or the last extension that the server saw. The holder may write
// until Trust: three quarters of LeaseTime, counted from before the extension was sent. So it stops while the server still keeps
// the task from others, whatever the network did to the request, as long as both clocks run at the same speed. (A machine that
// sleeps stops its clock: hence the first section.)
//
// A claim anchors nothing by its own request, since a message may arrive late in its wait, nor by its arrival, since nobody
// knows how long it was under way. Claim extends what it received before it returns, and that is the first anchor. An
// extension counts once the server has confirmed it; plain ones are lost without a word while the connection is down. One
// request confirms any number, because a connection keeps its order: Extend sends all, and waits for the answer to the last.
//
// Trust that has ended stays ended. Between two workers the broker decides only as long as it remembers the producer, and it forgets
// one whose records are older than a day whenever it looks (every ten minutes) and when it starts. A worker that was frozen and wakes up
// beside its successor must not write one more batch then; before there was this rule, such batches landed twice.
//
// All processes of an installation are given one LeaseTime: it is a setting of the shared consumer, and the last to open it wins.
//
// # What is kept where
//
//	stream <name>-tasks     one message per task, on <name>.task.<kind>.<flow>.<topic>.<partition>,
//	                        or <name>.task.mirror.<flow>.=slot.<slot>, see slots.go
//	bucket <name>-cursors   cursor.<flow>.<topic>.<partition>   the cursor, for fast claims and for fencing
//	                        note.<flow>.<kind>.<topic>.<partition>.<offset>   what else survives, see NoteKey
//	                        loaded.<flow>                       the bucket holds all that the offsets topic holds
//	                        incarnation                         written once, see below
//	                        slate.<what>                        what processes write in turn: see Slate
//	bucket <name>-states    <kind>.<flow>.<topic>.<partition>   why a task failed and when to try again, what a groups task has seen; in memory
//	                        turn.<what>                         whose turn it is, see Turn
//	<name>.ask.<flow>       plain messages, kept nowhere: tasks whose leases others wait for
//	<name>.share.<flow>     plain messages, kept nowhere: what each worker needs of the flow's limits, see Shares
//	<name>.told.claimed     plain messages, kept nowhere: leases that were claimed, for metrics alone, see Tell
//	offsets topic           on the target cluster; one record per cursor, in the format of MM2 (see Cursor), and one per note
//
// The offsets topic is what survives. KV is ahead of it by what was committed since the last Publish, and after a loss of NATS
// the coordinator loads the bucket from it (Load) before any worker may believe that a partition has no cursor. Rules between
// the two: the greater in (epoch, sequence, offset) wins, then that of the later decision, but a record that MM2 wrote always wins, and so does its tombstone. A
// cursor in an unknown format is carried along, byte for byte, and never overwritten.
//
// MM2 may have gone on while no coordinator ran. Until one loads that, the queue's cursor is from before: whoever is about to write it
// over MM2's record asks first (Left), and takes over from MM2 instead.
//
// A generation's first cursor is on the offsets topic before its first batch lands. Create and Commit see to that, and where a
// process dies between their two writes, the next Get does: it publishes every cursor that has counted nothing yet.
//
// Each partition of the offsets topic is written by itself, so that one without a leader stops the cursors that belong there and
// no others. Only Load has to read them all, since what can't be read may hold a cursor.
//
// # Who decides
//
// A cursor may hold its partition until somebody decides (Hold, Reason.Decide). A Decision goes into that very cursor: by
// compare-and-set in KV, which ends a worker that runs the partition, and onto the offsets topic, where it is enough if there is no
// queue. A worker carries it out: it notes what that costs (Gap), and only then starts the next generation, which has neither hold nor
// decision. Where a decision leads is Standing's to say, for whoever asks before and for the worker alike.
//
// # When NATS loses its store
//
// Every call that finds its stream, consumer or bucket gone creates them and goes on. Leases are gone then, and tasks are
// offered anew; nothing of the old store is mistaken for the new one, because streams begin with a sequence taken from the
// clock. So an old revision fails its compare-and-set, and an old acknowledgement meets no message. Loads that were under way
// do not count either: the loaded mark is written on condition that the incarnation is still the one that the load began with.
//
// # Non-obvious
//
//   - NATS 2.12 is the oldest server that this works with: batches of direct gets, and a write on condition of another key.
//   - A fetch of many messages with a wait holds the first back until the wait is over, while its lease runs. Claim waits for
//     one, then takes what there is.
//   - Publishing while disconnected succeeds into a buffer. Whatever must be known to have happened is a request.
//   - A consumer learns of a message shortly after its sender has the answer. A claim right behind an offer may find nothing.
//   - A State's times are by the clock of the worker that wrote it. Clocks are set, so a wait that nobody can have meant is none.
//   - ErrNoCursor means that the bucket was asked after it was loaded. An empty bucket means ErrNotLoaded.
package lease
