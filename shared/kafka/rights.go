package kafka

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// A resource is what a right is about, as kafka-acls.sh names it.
type resource string

const (
	ofTopic           resource = "topic"
	ofGroup           resource = "group"
	ofCluster         resource = "cluster"
	ofTransactionalID resource = "transactional-id"
)

// An operation is what a right allows, as kafka-acls.sh names it.
type operation string

const (
	toRead            operation = "Read"
	toWrite           operation = "Write"
	toCreate          operation = "Create"
	toAlter           operation = "Alter"
	toDescribe        operation = "Describe"
	toDescribeConfigs operation = "DescribeConfigs"
	toAlterConfigs    operation = "AlterConfigs"
)

// A DeniedError says which right a broker misses in whom, and how to give it. The broker's answer is in its chain.
type DeniedError struct {
	may  operation
	kind resource
	name string // of the resource; "" for the cluster

	alias, servers, principal string
	cause                     error
}

func (e *DeniedError) Error() string {
	on, option := fmt.Sprintf("%s %s of %s", e.kind, e.name, e.alias), fmt.Sprintf("--%s '%s'", e.kind, e.name)
	if e.kind == ofCluster {
		on, option = "cluster "+e.alias, "--cluster"
	}
	who, principal := e.principal, e.principal
	if who == "" {
		who, principal = "kferry's user", "User:NAME"
	}
	return fmt.Sprintf("%s lacks %s on %s (%s); to grant it: kafka-acls.sh --bootstrap-server %s --add --allow-principal '%s' --operation %s %s",
		who, e.may, on, words(e.cause), e.servers, principal, e.may, option)
}

func (e *DeniedError) Unwrap() error { return e.cause }

// words are a broker's error code alone: its explanation says no more.
func words(err error) string {
	if code, is := errors.AsType[*kerr.Error](err); is {
		return code.Message
	}
	return err.Error()
}

// Denied says that a broker refused for want of a right. What it is about stays as it is until somebody grants it.
func Denied(err error) bool {
	return anyOf(err, []error{ErrTopicAuthorization, ErrClusterAuthorization, ErrGroupAuthorization, ErrTransactionalIDAuth})
}

// lacking makes a DeniedError of a broker's refusal, and leaves every other error as it is. The broker has said only on what kind of resource a
// right is missing; who asked knows which.
func (c *Cluster) lacking(err error, may operation, kind resource, name string) error {
	if _, told := errors.AsType[*DeniedError](err); err == nil || told || !Denied(err) {
		return err
	}
	if errors.Is(err, ErrClusterAuthorization) && may != toWrite { // Write on any topic is as good as IdempotentWrite on the cluster
		kind, name = ofCluster, ""
	}
	return &DeniedError{may, kind, name, c.alias, strings.Join(c.servers, ","), c.as.Principal(), err}
}
