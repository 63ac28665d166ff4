package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kferry/kferry/shared/kafka/login"
)

// Answers of brokers that callers decide by, for errors.Is.
var (
	ErrUnknownServer             error = kerr.UnknownServerError
	ErrOffsetOutOfRange          error = kerr.OffsetOutOfRange
	ErrCorruptMessage            error = kerr.CorruptMessage
	ErrUnknownTopic              error = kerr.UnknownTopicOrPartition
	ErrLeaderNotAvailable        error = kerr.LeaderNotAvailable
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
	ErrSASLAuthentication        error = kerr.SaslAuthenticationFailed
	ErrUnsupportedSASLMechanism  error = kerr.UnsupportedSaslMechanism
	ErrUnknownProducer           error = kerr.UnknownProducerID
	ErrProducerIDMapping         error = kerr.InvalidProducerIDMapping
	ErrInvalidRequest            error = kerr.InvalidRequest
	ErrFencedLeaderEpoch         error = kerr.FencedLeaderEpoch
	ErrUnknownLeaderEpoch        error = kerr.UnknownLeaderEpoch
	ErrUnsupportedCompression    error = kerr.UnsupportedCompressionType
	ErrInvalidRecord             error = kerr.InvalidRecord
	ErrGroupAuthorization        error = kerr.GroupAuthorizationFailed
	ErrProducerFenced            error = kerr.ProducerFenced
	ErrUnknownTopicID            error = kerr.UnknownTopicID
	ErrInconsistentTopicID       error = kerr.InconsistentTopicID
	ErrSecurityDisabled          error = kerr.SecurityDisabled
	ErrGroupNotFound             error = kerr.GroupIDNotFound
	ErrOffsetMetadataTooLarge    error = kerr.OffsetMetadataTooLarge
)

// ErrUnanswered means that a request got no answer: the broker can't be reached, or the connection ended. The request may
// have been carried out all the same.
var ErrUnanswered = errors.New("no answer")

// ErrTLS means that a connection was made, and could not be secured. It is ErrUnanswered too.
var ErrTLS = login.ErrTLS

// ErrLogin means that a cluster does not take the login, or that there is none to give: no token, say. Nothing was carried out.
var ErrLogin = login.ErrLogin

// ErrClosed is the answer to calls after, or during, Close.
var ErrClosed error = kgo.ErrClientClosed

// Retriable says that the cause of an error may go away by itself: brokers restart, leaders move, replicas catch up, passwords are set right.
func Retriable(err error) bool {
	return errors.Is(err, ErrUnanswered) || errors.Is(err, ErrLogin) || kerr.IsRetriable(err)
}

var (
	// moving are the errors of a leader that moves, or is about to: a broker knows before its neighbours do.
	moving = []error{
		ErrUnanswered,
		ErrNotLeader,
		ErrLeaderNotAvailable,
		ErrUnknownLeaderEpoch,
		ErrStorage,
		kerr.ReplicaNotAvailable,
		kerr.BrokerNotAvailable,
		kerr.OffsetNotAvailable,
		kerr.ListenerNotFound,
	}
	// outdated has in addition the one where the leader has moved on from an epoch of our choice, not of a caller's.
	outdated = append([]error{ErrFencedLeaderEpoch}, moving...)
)

const (
	// patience is how long reads are repeated.
	patience = 10 * time.Second
	// firstPause is the pause before the first repetition. It doubles up to longestPause.
	firstPause   = 100 * time.Millisecond
	longestPause = time.Second
)

// patiently repeats a read while its error is one of those that pass.
func patiently(ctx context.Context, passing []error, read func() error) error {
	deadline := time.Now().Add(patience)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := read()
		if err == nil || !anyOf(err, passing) || time.Now().Add(pause).After(deadline) {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func anyOf(err error, targets []error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// answer is a broker's error code with its words, where it sent any.
func answer(code int16, message *string) error {
	err := kerr.ErrorForCode(code)
	if err == nil || message == nil || *message == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, *message)
}

// unanswered explains why there is no answer. Dialling says more than the deadline that it outlasted.
func (c *Cluster) unanswered(err error) error {
	if errors.Is(err, ErrClosed) || c.ctx.Err() != nil {
		return fmt.Errorf("cluster %s: %w", c.alias, ErrClosed)
	}
	if dial := c.dial.Load(); dial != nil && errors.Is(err, context.DeadlineExceeded) {
		err = *dial
	}
	err = c.login.Explain(err)
	if _, broker := errors.AsType[*kerr.Error](err); broker || errors.Is(err, ErrLogin) {
		return fmt.Errorf("cluster %s: %w", c.alias, err)
	}
	return fmt.Errorf("cluster %s (bootstrap servers %s): %w: %w", c.alias, strings.Join(c.servers, ","), ErrUnanswered, err)
}
