package kafka

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DefaultReplication is the replication factor that a topic gets where none is given. It takes the right to describe the cluster's
// configuration.
func (c *Cluster) DefaultReplication(ctx context.Context) (int, error) {
	const key = "default.replication.factor"
	cluster, err := c.describe(ctx)
	if err != nil {
		return 0, fmt.Errorf("brokers: %w", err)
	}
	if len(cluster.Brokers) == 0 {
		return 0, fmt.Errorf("%s: no broker to ask", key)
	}
	broker := cluster.Brokers[0].NodeID
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeBroker, strconv.Itoa(int(broker))
	resource.ConfigNames = []string{key}
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Resources = append(req.Resources, resource)
	resp, err := oneBroker[*kmsg.DescribeConfigsResponse](ctx, c, broker, req)
	if err != nil {
		return 0, fmt.Errorf("%s of broker %d: %w", key, broker, err)
	}
	for _, r := range resp.Resources {
		if err := c.lacking(answer(r.ErrorCode, r.ErrorMessage), toDescribeConfigs, ofCluster, ""); err != nil {
			return 0, fmt.Errorf("%s of broker %d: %w", key, broker, err)
		}
		for _, entry := range r.Configs {
			if entry.Name == key && entry.Value != nil {
				return strconv.Atoi(*entry.Value)
			}
		}
	}
	return 0, fmt.Errorf("%s: broker %d does not tell", key, broker)
}
