// Package kafka is one cluster.
package kafka

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"

	"github.com/kferry/kferry/shared/batch"
	"github.com/kferry/kferry/shared/spec"
)

type TopicPartition struct {
	Topic     string
	Partition int32
}

func (tp TopicPartition) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }

type TopicID [16]byte

func (id TopicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }
func (id TopicID) Zero() bool     { return id == TopicID{} }

type Options struct {
	ClientID string
	Budget   *Budget
	Logger   *slog.Logger
	Dialer   func(ctx context.Context, network, address string) (net.Conn, error)
}

type Cluster struct{ alias string }

func Open(cl spec.Cluster, o Options) (*Cluster, error)   { return &Cluster{alias: cl.Alias}, nil }
func (c *Cluster) Close()                                 {}
func (c *Cluster) Alias() string                          { return c.alias }
func (c *Cluster) ID(ctx context.Context) (string, error) { return "", errNotYet }
func (c *Cluster) Brokers(ctx context.Context) (int, error) {
	return 0, errNotYet
}
func (c *Cluster) Ping(ctx context.Context) error { return errNotYet }

type Topic struct {
	Name       string
	ID         TopicID
	Internal   bool
	Partitions []Partition
	Err        error
}
type Partition struct {
	Leader, LeaderEpoch int32
	Replicas            int
	Err                 error
}

func (c *Cluster) Topics(ctx context.Context) ([]Topic, error) { return nil, errNotYet }
func (c *Cluster) Topic(ctx context.Context, name string) (Topic, error) {
	return Topic{}, errNotYet
}

type Isolation = spec.Isolation

const (
	Latest   int64 = -1
	Earliest int64 = -2
)

type Offset struct {
	Offset      int64
	LeaderEpoch int32
	Err         error
}

func (c *Cluster) ListOffsets(ctx context.Context, tps []TopicPartition, timestamp int64, iso Isolation) (map[TopicPartition]Offset, error) {
	return nil, errNotYet
}
func (c *Cluster) LogEnd(ctx context.Context, tp TopicPartition) (Offset, error) {
	return Offset{}, errNotYet
}
func (c *Cluster) HighWatermark(ctx context.Context, tp TopicPartition) (Offset, error) {
	return Offset{}, errNotYet
}
func (c *Cluster) LogStart(ctx context.Context, tp TopicPartition) (Offset, error) {
	return Offset{}, errNotYet
}

type Aborted struct{ ProducerID, FirstOffset int64 }
type Fetched struct {
	Records                             []byte
	HighWatermark, LastStable, LogStart int64
	Aborted                             []Aborted
}

func (f *Fetched) Release() {}

type Want struct {
	TopicPartition
	TopicID     TopicID
	Offset      int64
	LeaderEpoch int32
	Isolation   Isolation
}

func (c *Cluster) Read(ctx context.Context, tp TopicPartition, offset int64, maxBytes int32, iso Isolation) (*Fetched, error) {
	return nil, errNotYet
}
func (c *Cluster) Fetch(ctx context.Context, w Want) (*Fetched, error) { return nil, errNotYet }

type Produced struct{ BaseOffset, LogAppendTime, LogStart int64 }

func (c *Cluster) Produce(ctx context.Context, tp TopicPartition, id TopicID, b batch.Batch) (Produced, error) {
	return Produced{}, errNotYet
}

type ConfigSource string

const (
	SourceTopic         ConfigSource = "topic"
	SourceDynamicBroker ConfigSource = "dynamic-broker"
	SourceStaticBroker  ConfigSource = "static-broker"
	SourceDefault       ConfigSource = "default"
)

type ConfigEntry struct {
	Name, Value         string
	Source              ConfigSource
	ReadOnly, Sensitive bool
}
type TopicConfig struct {
	Entries []ConfigEntry
	Err     error
}
type NewTopic struct {
	Name              string
	Partitions        int32
	ReplicationFactor int16
	Configs           map[string]string
	ValidateOnly      bool
}

func (c *Cluster) Configs(ctx context.Context, topics []string) (map[string]TopicConfig, error) {
	return nil, errNotYet
}
func (c *Cluster) CreateTopic(ctx context.Context, t NewTopic) error { return errNotYet }
func (c *Cluster) AddPartitions(ctx context.Context, topic string, total int32) error {
	return errNotYet
}

type Producer struct {
	ID            int64
	Epoch         int16
	LastSequence  int32
	LastTimestamp int64
}

func (c *Cluster) DescribeProducers(ctx context.Context, tp TopicPartition) ([]Producer, error) {
	return nil, errNotYet
}
func (c *Cluster) LogBytes(ctx context.Context, topics []string) (map[TopicPartition]int64, error) {
	return nil, errNotYet
}

type Record struct {
	Partition         int32
	Key, Value        []byte
	Offset, Timestamp int64
}

func (c *Cluster) Write(ctx context.Context, topic string, records []Record) error { return errNotYet }
func (c *Cluster) ReadAll(ctx context.Context, topic string, f func(Record) error) error {
	return errNotYet
}

type Budget struct{ bytes int64 }

func NewBudget(bytes int64) *Budget                           { return &Budget{bytes} }
func (b *Budget) Acquire(ctx context.Context, n int64) error { return nil }
func (b *Budget) Release(n int64)                             {}
