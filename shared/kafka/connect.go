package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What shows whether a group of Connect workers is still at work, and keeps one that is not from coming back with what it had begun.

const (
	// fenceTimeout is the transaction timeout that is named where one is only ended.
	fenceTimeout = 60_000 // milliseconds
	// mostTransactional bounds the transactional ids of one prefix that are looked at: a Connect task has one.
	mostTransactional = 10_000
)

// Members counts the members of a consumer group, of whatever protocol. A group that there isn't has none.
func (c *Cluster) Members(ctx context.Context, group string) (int, error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{group}
	resp, err := anyBroker[*kmsg.DescribeGroupsResponse](ctx, c, req)
	if err != nil {
		return 0, fmt.Errorf("describe group %s: %w", group, c.lacking(err, toDescribe, ofGroup, group))
	}
	members := 0
	for _, g := range resp.Groups {
		err := c.lacking(answer(g.ErrorCode, g.ErrorMessage), toDescribe, ofGroup, group)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return 0, fmt.Errorf("describe group %s: %w", group, err)
		}
		members += len(g.Members)
	}
	return members, nil
}

// TransactionalIDs lists the transactional ids that begin with a prefix, as far as the caller may see them.
func (c *Cluster) TransactionalIDs(ctx context.Context, prefix string) ([]string, error) {
	resp, err := anyBroker[*kmsg.ListTransactionsResponse](ctx, c, kmsg.NewPtrListTransactionsRequest())
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return nil, fmt.Errorf("list transactions: %w", err)
	}
	var ids []string
	for _, t := range resp.TransactionStates {
		if strings.HasPrefix(t.TransactionalID, prefix) {
			ids = append(ids, t.TransactionalID)
		}
	}
	if len(ids) > mostTransactional {
		return nil, fmt.Errorf("%d transactional ids begin with %s, more than %d", len(ids), prefix, mostTransactional)
	}
	return ids, nil
}

// Fence ends the transaction that a transactional id has open, if any, and keeps whoever had it from writing on. What was committed
// by then is seen to its end.
func (c *Cluster) Fence(ctx context.Context, transactionalID string) error {
	err := patiently(ctx, []error{kerr.ConcurrentTransactions, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator}, func() error {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &transactionalID, fenceTimeout
		resp, err := anyBroker[*kmsg.InitProducerIDResponse](ctx, c, req)
		if err != nil {
			return c.lacking(err, toWrite, ofTransactionalID, transactionalID)
		}
		return c.lacking(kerr.ErrorForCode(resp.ErrorCode), toWrite, ofTransactionalID, transactionalID)
	})
	if err != nil {
		return fmt.Errorf("fence transactional id %s: %w", transactionalID, err)
	}
	return nil
}
