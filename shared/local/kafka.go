package local

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/kferry/kferry/shared/spec"
)

// Ports on the virtual network: the first cluster's brokers begin at firstPort, the next one's portsPerCluster above.
const (
	firstPort       = 9000
	portsPerCluster = 100
)

func (c Cluster) start(nth int, virtual bool, listen kfake.Opt) (*running, error) {
	options, err := c.options(nth, virtual)
	if err != nil {
		return nil, err
	}
	cluster, err := kfake.NewCluster(append(options, listen)...)
	if err != nil {
		return nil, err
	}
	described := spec.Cluster{Alias: c.Alias, BootstrapServers: cluster.ListenAddrs()}
	if len(c.Users) > 0 {
		described.Login = loginOf(root)
	}
	return &running{cluster, described}, nil
}

// root may do everything where there are users.
const root = "root"

// loginOf is the login of a user.
func loginOf(user string) *spec.Login {
	return spec.FixedLogin(spec.Security{SASL: &spec.SASL{Mechanism: spec.PLAIN, Username: user, Password: spec.Secret(user)}})
}

func (c Cluster) options(nth int, virtual bool) ([]kfake.Opt, error) {
	brokers := max(c.Brokers, 1)
	options := []kfake.Opt{kfake.NumBrokers(brokers), kfake.ClusterID("local-" + c.Alias), kfake.BrokerConfigs(c.Configs)}
	for topic, partitions := range c.Topics {
		options = append(options, kfake.SeedTopics(partitions, topic))
	}
	if len(c.Users) > 0 {
		options = append(options, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser(string(spec.PLAIN), root, root))
	}
	for _, user := range c.Users {
		options = append(options, kfake.User(string(spec.PLAIN), user, user))
	}
	if virtual {
		options = append(options, kfake.Ports(ports(nth, brokers)...))
	}
	if c.Version != "" {
		versions := kversion.FromString(c.Version)
		if versions == nil {
			return nil, fmt.Errorf("no Kafka version %q is known; give one like 3.3", c.Version)
		}
		options = append(options, kfake.MaxVersions(versions))
	}
	return options, nil
}

func ports(nth, brokers int) []int {
	list := make([]int, brokers)
	for i := range list {
		list[i] = firstPort + nth*portsPerCluster + i
	}
	return list
}
