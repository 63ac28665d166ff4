package kafka

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

var errNotYet = errors.ErrUnsupported

// Answers of brokers that somebody decides by.
var (
	ErrUnknownServer             error = kerr.UnknownServerError
	ErrOffsetOutOfRange          error = kerr.OffsetOutOfRange
	ErrCorruptMessage            error = kerr.CorruptMessage
	ErrUnknownTopic              error = kerr.UnknownTopicOrPartition
	ErrNotLeader                 error = kerr.NotLeaderForPartition
	ErrRequestTimedOut           error = kerr.RequestTimedOut
	ErrMessageTooLarge           error = kerr.MessageTooLarge
	ErrInvalidTopic              error = kerr.InvalidTopicException
	ErrRecordListTooLarge        error = kerr.RecordListTooLarge
	ErrNotEnoughReplicas         error = kerr.NotEnoughReplicas
	ErrNotEnoughReplicasAppended error = kerr.NotEnoughReplicasAfterAppend
	ErrTopicAuthorization        error = kerr.TopicAuthorizationFailed
	ErrClusterAuthorization      error = kerr.ClusterAuthorizationFailed
	ErrInvalidTimestamp          error = kerr.InvalidTimestamp
	ErrUnsupportedVersion        error = kerr.UnsupportedVersion
	ErrTopicExists               error = kerr.TopicAlreadyExists
	ErrInvalidPartitions         error = kerr.InvalidPartitions
	ErrInvalidReplicationFactor  error = kerr.InvalidReplicationFactor
	ErrInvalidConfig             error = kerr.InvalidConfig
	ErrUnsupportedForFormat      error = kerr.UnsupportedForMessageFormat
	ErrPolicyViolation           error = kerr.PolicyViolation
	ErrOutOfOrderSequence        error = kerr.OutOfOrderSequenceNumber
	ErrInvalidProducerEpoch      error = kerr.InvalidProducerEpoch
	ErrTransactionalIDAuth       error = kerr.TransactionalIDAuthorizationFailed
	ErrStorage                   error = kerr.KafkaStorageError
	ErrFencedLeaderEpoch         error = kerr.FencedLeaderEpoch
	ErrUnknownLeaderEpoch        error = kerr.UnknownLeaderEpoch
	ErrUnsupportedCompression    error = kerr.UnsupportedCompressionType
	ErrInvalidRecord             error = kerr.InvalidRecord
	ErrProducerFenced            error = kerr.ProducerFenced
	ErrUnknownTopicID            error = kerr.UnknownTopicID
	ErrInconsistentTopicID       error = kerr.InconsistentTopicID
)

func Retriable(err error) bool { return kerr.IsRetriable(err) }
