package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// aclsAtOnce bounds the ACLs that one request creates or deletes.
const aclsAtOnce = 500

// An ACL allows or denies somebody an operation on topics. Its words are Kafka's: LITERAL or PREFIXED, READ, DESCRIBE_CONFIGS and so on,
// ALLOW or DENY.
type ACL struct {
	Topic      string `json:"topic"` // or a prefix of topics; "*", taken literally, is every topic
	Pattern    string `json:"pattern"`
	Principal  string `json:"principal"`
	Host       string `json:"host"`
	Operation  string `json:"operation"`
	Permission string `json:"permission"`
}

// The words that callers decide by.
const (
	ACLLiteral  = "LITERAL"
	ACLPrefixed = "PREFIXED"
	ACLAllow    = "ALLOW"
	ACLDeny     = "DENY"
	ACLAll      = "ALL"
	ACLRead     = "READ"
	ACLWrite    = "WRITE"
)

func (a ACL) String() string {
	return fmt.Sprintf("%s %s %s on %s %q from host %s", a.Principal, a.Permission, a.Operation, a.Pattern, a.Topic, a.Host)
}

// DescribeACLs lists the ACLs of topics that name one topic, or all where it is "": those of any pattern, as they were given. It fails
// with ErrSecurityDisabled where the cluster has no authorizer, and with ErrClusterAuthorization where Describe on the cluster is lacking.
func (c *Cluster) DescribeACLs(ctx context.Context, topic string) ([]ACL, error) {
	return c.describeACLs(ctx, topic, kmsg.ACLResourcePatternTypeAny)
}

// HasACLs says whether any ACL reaches a topic: by its name, by a prefix, or as every topic's. It fails as DescribeACLs does.
func (c *Cluster) HasACLs(ctx context.Context, topic string) (bool, error) {
	acls, err := c.describeACLs(ctx, topic, kmsg.ACLResourcePatternTypeMatch)
	return len(acls) > 0, err
}

func (c *Cluster) describeACLs(ctx context.Context, topic string, pattern kmsg.ACLResourcePatternType) ([]ACL, error) {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourcePatternType = kmsg.ACLResourceTypeTopic, pattern
	req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	if topic != "" {
		req.ResourceName = &topic
	}
	resp, err := anyBroker[*kmsg.DescribeACLsResponse](ctx, c, req)
	if err == nil {
		err = c.lacking(answer(resp.ErrorCode, resp.ErrorMessage), toDescribe, ofCluster, "")
	}
	if err != nil {
		return nil, fmt.Errorf("describe ACLs: %w", err)
	}
	var acls []ACL
	for _, r := range resp.Resources {
		for _, a := range r.ACLs {
			acls = append(acls, ACL{
				Topic: r.ResourceName, Pattern: r.ResourcePatternType.String(), Principal: a.Principal, Host: a.Host,
				Operation: a.Operation.String(), Permission: a.PermissionType.String(),
			})
		}
	}
	return acls, nil
}

// aclWords are an ACL in the protocol's numbers.
type aclWords struct {
	pattern    kmsg.ACLResourcePatternType
	operation  kmsg.ACLOperation
	permission kmsg.ACLPermissionType
}

func (a ACL) words() (w aclWords, err error) {
	if w.pattern, err = kmsg.ParseACLResourcePatternType(a.Pattern); err != nil {
		return w, err
	}
	if w.operation, err = kmsg.ParseACLOperation(a.Operation); err != nil {
		return w, err
	}
	w.permission, err = kmsg.ParseACLPermissionType(a.Permission)
	return w, err
}

// CreateACLs creates ACLs, and stops at the first that is refused. One that exists already is no error.
func (c *Cluster) CreateACLs(ctx context.Context, acls []ACL) error {
	for some := range slices.Chunk(acls, aclsAtOnce) {
		req := kmsg.NewPtrCreateACLsRequest()
		for _, a := range some {
			w, err := a.words()
			if err != nil {
				return fmt.Errorf("create ACL %s: %w", a, err)
			}
			creation := kmsg.NewCreateACLsRequestCreation()
			creation.ResourceType, creation.ResourceName, creation.ResourcePatternType = kmsg.ACLResourceTypeTopic, a.Topic, w.pattern
			creation.Principal, creation.Host, creation.Operation, creation.PermissionType = a.Principal, a.Host, w.operation, w.permission
			req.Creations = append(req.Creations, creation)
		}
		resp, err := anyBroker[*kmsg.CreateACLsResponse](ctx, c, req)
		if err != nil {
			return fmt.Errorf("create ACLs: %w", err)
		}
		for i, r := range resp.Results {
			if err := c.lacking(answer(r.ErrorCode, r.ErrorMessage), toAlter, ofCluster, ""); err != nil {
				return fmt.Errorf("create ACL %s: %w", some[min(i, len(some)-1)], err)
			}
		}
	}
	return nil
}

// DeleteACLs deletes ACLs, each exactly as it is given, and stops at the first that is refused. One that is not there is no error.
func (c *Cluster) DeleteACLs(ctx context.Context, acls []ACL) error {
	for some := range slices.Chunk(acls, aclsAtOnce) {
		req := kmsg.NewPtrDeleteACLsRequest()
		for _, a := range some {
			w, err := a.words()
			if err != nil {
				return fmt.Errorf("delete ACL %s: %w", a, err)
			}
			filter := kmsg.NewDeleteACLsRequestFilter()
			filter.ResourceType, filter.ResourceName, filter.ResourcePatternType = kmsg.ACLResourceTypeTopic, &a.Topic, w.pattern
			filter.Principal, filter.Host, filter.Operation, filter.PermissionType = &a.Principal, &a.Host, w.operation, w.permission
			req.Filters = append(req.Filters, filter)
		}
		resp, err := anyBroker[*kmsg.DeleteACLsResponse](ctx, c, req)
		if err != nil {
			return fmt.Errorf("delete ACLs: %w", err)
		}
		for i, r := range resp.Results {
			if err := c.lacking(answer(r.ErrorCode, r.ErrorMessage), toAlter, ofCluster, ""); err != nil {
				return fmt.Errorf("delete ACL %s: %w", some[min(i, len(some)-1)], err)
			}
		}
	}
	return nil
}

// MayWrite says whether this client has the right to write to a topic. A cluster without an authorizer allows it; of one that doesn't tell
// nothing is known.
func (c *Cluster) MayWrite(ctx context.Context, topic string) (may, known bool, err error) {
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	req.Topics = append(req.Topics, t)
	resp, err := c.askMetadata(ctx, req)
	if err != nil {
		return false, false, fmt.Errorf("rights on %s: %w", topic, err)
	}
	for _, t := range resp.Topics {
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case errors.Is(err, ErrTopicAuthorization):
			return false, true, nil // not even to see it
		case err != nil:
			return false, false, fmt.Errorf("rights on %s: %w", topic, err)
		}
		return t.AuthorizedOperations&(1<<kmsg.ACLOperationWrite) != 0, t.AuthorizedOperations != math.MinInt32, nil
	}
	return false, false, nil
}
