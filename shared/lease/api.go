// Package lease is the work queue and the cursors.
package lease

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/kferry/kferry/shared/spec"
)

var ErrLost = errors.New("lost to another worker")
var ErrNoCursor = errors.New("no cursor")
var ErrNotLoaded = errors.New("cursors not loaded yet")
var errNotYet = errors.ErrUnsupported

type Options struct {
	URL       string
	InProcess interface{ InProcessConn() (net.Conn, error) } // *local.NATS
	Name      string
	LeaseTime time.Duration
	Replicas  int
	Client    string
	Logger    *slog.Logger
}
type Queue struct{}
type Lease struct{ Task Task }

func Open(ctx context.Context, o Options) (*Queue, error)             { return &Queue{}, errNotYet }
func (q *Queue) Close()                                               {}
func (q *Queue) Purge(ctx context.Context) error                      { return errNotYet }
func (q *Queue) Offer(ctx context.Context, t Task) (bool, error)      { return false, errNotYet }
func (q *Queue) OfferAll(ctx context.Context, ts []Task) (int, error) { return 0, errNotYet }
func (q *Queue) Claim(ctx context.Context, n int, wait time.Duration) ([]*Lease, error) {
	return nil, errNotYet
}
func (q *Queue) Waiting(ctx context.Context) (int, error)           { return 0, errNotYet }
func (q *Queue) Extend(ctx context.Context, leases ...*Lease) error { return errNotYet }
func (l *Lease) Trust() time.Time                                   { return time.Time{} }
func (l *Lease) Extend(ctx context.Context) error                   { return errNotYet }
func (l *Lease) Release(ctx context.Context) error                  { return errNotYet }
func (l *Lease) HandBack(ctx context.Context) error                 { return errNotYet }

type State struct {
	Reason      Reason
	Detail      string
	Held        bool
	Attempts    int
	Since, Next time.Time
	Worker      string
}

func (q *Queue) PutState(ctx context.Context, t Task, s State) error { return errNotYet }
func (q *Queue) ClearState(ctx context.Context, t Task) error        { return errNotYet }
func (q *Queue) States(ctx context.Context) (map[Task]State, error)  { return nil, errNotYet }

type Cursors struct{}

func (q *Queue) Cursors(flow spec.Flow, target *kafka.Cluster) *Cursors { return &Cursors{} }
func (c *Cursors) Load(ctx context.Context) error                       { return errNotYet }
func (c *Cursors) Loaded(ctx context.Context) (bool, error)             { return false, errNotYet }
func (c *Cursors) Get(ctx context.Context, topic string, partition int32) (Cursor, uint64, error) {
	return Cursor{}, 0, errNotYet
}
func (c *Cursors) Create(ctx context.Context, topic string, partition int32, cur Cursor) (uint64, error) {
	return 0, errNotYet
}
func (c *Cursors) Commit(ctx context.Context, topic string, partition int32, cur Cursor, revision uint64) (uint64, error) {
	return 0, errNotYet
}
func (c *Cursors) Publish(ctx context.Context, topic string, partition int32, cur Cursor) error {
	return errNotYet
}
func (c *Cursors) All(ctx context.Context) (map[kafka.TopicPartition]Cursor, error) {
	return nil, errNotYet
}
