package testbed

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	brokerWithin   = 3 * time.Minute  // from the start of a broker's container until the cluster counts it in
	startAttempts  = 3                // of a whole cluster, where another process took one of its ports
	requestTimeout = 10 * time.Second // of one request of the testbed's own

	brief = "-XX:TieredStopAtLevel=1" // of a JVM that lives for minutes: what it would compile again costs more than it gains
)

// Cluster is a Kafka cluster of one or more brokers in containers. A broker's index is its node id. It keeps its data
// and its addresses while it is stopped, killed or paused.
//
// Each broker has two listeners for clients. The one of [Cluster.Bootstrap] is what is under test and may lead
// through a [Proxy]. The one of [Cluster.InternalBootstrap] is direct: brokers among themselves and the testbed's own
// clients use it, so that no fault on the way blinds the oracle.
type Cluster struct {
	t        T
	version  string
	brokers  []*broker
	security *security // nil where only the plain listeners are there
}

type broker struct {
	*Container
	endpoint                                   // of Bootstrap
	secured              map[Listener]endpoint // empty unless WithSecurity
	internal, controller int                   // ports
}

// endpoint is where clients reach a broker.
type endpoint struct {
	port  int
	proxy *Proxy // nil for none
}

type kafkaConfig struct {
	brokers    int
	proxied    bool
	heap       string
	properties map[string]string
	security   *security
	files      map[string][]byte
	jvm        []string
}

// KafkaOption changes how [Kafka] starts a cluster.
type KafkaOption func(*kafkaConfig)

// WithBrokers sets the number of brokers, 1 unless told. All are controllers too, but of two only the first.
func WithBrokers(n int) KafkaOption { return func(c *kafkaConfig) { c.brokers = n } }

// WithConfig sets a property of every broker, such as log.retention.ms.
func WithConfig(key, value string) KafkaOption {
	return func(c *kafkaConfig) { c.properties[key] = value }
}

// WithHeap sets the memory of each broker's JVM, 512m unless told.
func WithHeap(size string) KafkaOption { return func(c *kafkaConfig) { c.heap = size } }

// Lasting is for a broker that is measured: its JVM compiles what runs often as well as it can, which pays after some minutes.
func Lasting() KafkaOption {
	return func(c *kafkaConfig) {
		c.jvm = slices.DeleteFunc(c.jvm, func(option string) bool { return option == brief })
	}
}

// WithProxy puts a [Proxy] before every listener for clients; the brokers advertise the proxies' addresses.
func WithProxy() KafkaOption { return func(c *kafkaConfig) { c.proxied = true } }

// Kafka starts a cluster that ends with the test.
func Kafka(t T, version string, opts ...KafkaOption) *Cluster {
	t.Helper()
	config := kafkaConfig{brokers: 1, heap: "512m", properties: map[string]string{}, files: map[string][]byte{}, jvm: []string{brief}}
	for _, opt := range opts {
		opt(&config)
	}
	if config.security != nil {
		config.security.prepare(version, &config)
	}
	var err error
	for range startAttempts {
		c := &Cluster{t: t, version: version, security: config.security}
		if err = c.start(version, config); err == nil {
			if c.security != nil && hasSCRAM(version) {
				c.SetPassword(User, Password)
				c.SetPassword(Other, Password)
			}
			return c
		}
		t.Logf("start Kafka %s: %v", version, err)
		c.remove()
	}
	t.Fatalf("Kafka %s does not start: %v", version, err)
	return nil
}

// Bootstrap is where kferry finds the cluster.
func (c *Cluster) Bootstrap() string {
	return c.addresses(func(b *broker) string { return b.endpoint.address() })
}

func (e endpoint) address() string {
	if e.proxy != nil {
		return e.proxy.Addr()
	}
	return address(e.port)
}

// InternalBootstrap is a way to the same brokers past their proxies.
func (c *Cluster) InternalBootstrap() string {
	return c.addresses(func(b *broker) string { return address(b.internal) })
}

// Proxy is the one before broker i of a cluster started [WithProxy], on the way of [Cluster.Bootstrap].
func (c *Cluster) Proxy(i int) *Proxy { return c.brokers[i].proxy }

// Broker is the container of broker i.
func (c *Cluster) Broker(i int) *Container { return c.brokers[i].Container }

// Stop ends a broker in order: it hands its partitions over first.
func (c *Cluster) Stop(i int) { c.t.Helper(); c.brokers[i].Stop() }

// Kill ends a broker with kill -9.
func (c *Cluster) Kill(i int) { c.t.Helper(); c.brokers[i].Kill() }

// Start brings back brokers that were stopped or killed, and waits until the cluster counts them in.
func (c *Cluster) Start(brokers ...int) {
	c.t.Helper()
	for _, i := range brokers {
		c.brokers[i].Start()
	}
	for _, i := range brokers {
		if err := c.awaitBroker(i); err != nil {
			c.t.Fatalf("start broker %d: %v", i, err)
		}
	}
}

// Restart stops a broker in order and starts it again.
func (c *Cluster) Restart(i int) { c.t.Helper(); c.Stop(i); c.Start(i) }

// Pause freezes a broker. Its followers' leader, or its leader's follower, is then silent without being gone.
func (c *Cluster) Pause(i int) { c.t.Helper(); c.brokers[i].Pause() }

// Unpause lets a frozen broker go on.
func (c *Cluster) Unpause(i int) { c.t.Helper(); c.brokers[i].Unpause() }

// For is the same cluster for another test: what fails there, fails that one.
func (c *Cluster) For(t T) *Cluster {
	view := &Cluster{t: t, version: c.version, security: c.security}
	for _, b := range c.brokers {
		own := *b
		own.Container = &Container{t: t, name: b.name, ctr: b.ctr}
		t.Cleanup(own.logIfFailed)
		view.brokers = append(view.brokers, &own)
	}
	return view
}

// Client is a plain client past proxies; it ends with the test.
func (c *Cluster) Client(opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	return newClient(c.t, c.InternalBootstrap(), opts...)
}

// Admin is a plain admin client; it ends with the test.
func (c *Cluster) Admin() *kadm.Client { c.t.Helper(); return kadm.NewClient(c.Client()) }

// CreateTopic creates a topic; configs alternate between key and value.
func (c *Cluster) CreateTopic(topic string, partitions, replicas int, configs ...string) {
	c.t.Helper()
	values := map[string]*string{}
	for i := 0; i+1 < len(configs); i += 2 {
		values[configs[i]] = &configs[i+1]
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), brokerWithin)
	defer cancel()
	admin := c.Admin()
	defer admin.Close()
	_, err := admin.CreateTopic(ctx, int32(partitions), int16(replicas), values, topic)
	if err != nil {
		c.t.Fatalf("create topic %s: %v", topic, err)
	}
}

// SetConfig sets a property of all brokers while they run, or, where the value is empty, takes it back.
func (c *Cluster) SetConfig(key, value string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), brokerWithin)
	defer cancel()
	admin := c.Admin()
	defer admin.Close()
	change := kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &value}
	if value == "" {
		change = kadm.AlterConfig{Op: kadm.DeleteConfig, Name: key}
	}
	answers, err := admin.AlterBrokerConfigs(ctx, []kadm.AlterConfig{change})
	for _, answer := range answers {
		err = cmp.Or(err, answer.Err)
	}
	if err != nil {
		c.t.Fatalf("set %s of all brokers: %v", key, err)
	}
}

// Topics describes those of the named topics that exist, internal ones included.
func (c *Cluster) Topics(names ...string) kadm.TopicDetails {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), brokerWithin)
	defer cancel()
	admin := c.Admin()
	defer admin.Close()
	topics, err := admin.ListTopicsWithInternal(ctx, names...)
	if err != nil {
		c.t.Fatalf("topics %v: %v", names, err)
	}
	for name, topic := range topics {
		if topic.Err != nil {
			delete(topics, name)
		}
	}
	return topics
}

// Leaders is the broker that leads each partition of a topic, -1 where none does.
func (c *Cluster) Leaders(topic string) []int {
	c.t.Helper()
	partitions := c.Topics(topic)[topic].Partitions
	leaders := make([]int, len(partitions))
	for _, p := range partitions {
		leaders[p.Partition] = int(p.Leader)
	}
	return leaders
}

func (c *Cluster) addresses(of func(*broker) string) string {
	all := make([]string, len(c.brokers))
	for i, b := range c.brokers {
		all[i] = of(b)
	}
	return strings.Join(all, ",")
}

// start lays out all addresses first, since every broker is told the controllers', and then starts all brokers at once.
func (c *Cluster) start(version string, config kafkaConfig) error {
	for range config.brokers {
		b := &broker{endpoint: c.endpoint(config), internal: freePort(c.t), controller: freePort(c.t), secured: map[Listener]endpoint{}}
		if config.security != nil {
			for _, l := range config.security.listeners {
				b.secured[l] = c.endpoint(config)
			}
		}
		c.brokers = append(c.brokers, b)
	}
	clusterID := newClusterID()
	for i, b := range c.brokers {
		env := c.environment(i, config)
		env["CLUSTER_ID"] = clusterID
		ctr, err := startContainer(c.t, fmt.Sprintf("Kafka %s broker %d", version, i), "apache/kafka:"+version,
			testcontainers.WithEnv(env), containerFiles(config.files))
		if err != nil {
			return err
		}
		b.Container = ctr
	}
	for i := range c.brokers {
		if err := c.awaitBroker(i); err != nil {
			return fmt.Errorf("broker %d: %w", i, err)
		}
	}
	return nil
}

func (c *Cluster) endpoint(config kafkaConfig) endpoint {
	e := endpoint{port: freePort(c.t)}
	if config.proxied {
		e.proxy = NewProxy(c.t, address(e.port))
	}
	return e
}

// environment is server.properties in the form that the image takes it: foo.bar as KAFKA_FOO_BAR.
func (c *Cluster) environment(i int, config kafkaConfig) map[string]string {
	b, controllers := c.brokers[i], len(c.brokers)
	if controllers == 2 {
		controllers = 1 // two would need both of them for every decision
	}
	voters := make([]string, controllers)
	for i := range voters {
		voters[i] = fmt.Sprintf("%d@%s", i, address(c.brokers[i].controller))
	}
	roles, protocol := "broker", "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
	listeners := fmt.Sprintf("CLIENT://%s,INTERNAL://%s", address(b.port), address(b.internal))
	advertised := fmt.Sprintf("CLIENT://%s,INTERNAL://%s", b.endpoint.address(), address(b.internal))
	for l, e := range b.secured {
		listeners += fmt.Sprintf(",%s://%s", l, address(e.port))
		advertised += fmt.Sprintf(",%s://%s", l, e.address())
		protocol += fmt.Sprintf(",%s:%s", l, l.Protocol())
	}
	if i < controllers {
		roles, listeners = "broker,controller", listeners+",CONTROLLER://"+address(b.controller)
	}
	properties := map[string]string{
		"process.roles":                                    roles,
		"node.id":                                          strconv.Itoa(i),
		"controller.quorum.voters":                         strings.Join(voters, ","),
		"controller.listener.names":                        "CONTROLLER",
		"inter.broker.listener.name":                       "INTERNAL",
		"listeners":                                        listeners,
		"advertised.listeners":                             advertised,
		"listener.security.protocol.map":                   protocol,
		"log.dirs":                                         "/var/lib/kafka/data",
		"group.initial.rebalance.delay.ms":                 "0",
		"broker.session.timeout.ms":                        "6000", // a killed broker may register again only after this
		"broker.heartbeat.interval.ms":                     "1000",
		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"share.coordinator.state.topic.num.partitions":     "4",
	}
	maps.Copy(properties, config.properties)
	names := strings.NewReplacer("_", "__", "-", "___", ".", "_")
	env := map[string]string{"KAFKA_HEAP_OPTS": "-Xms" + config.heap + " -Xmx" + config.heap, "KAFKA_OPTS": strings.Join(config.jvm, " ")}
	for key, value := range properties {
		env["KAFKA_"+strings.ToUpper(names.Replace(key))] = value
	}
	return env
}

// awaitBroker waits until broker i answers and knows itself to be part of the cluster. A broker whose process ended
// fails at once, and with its own words.
func (c *Cluster) awaitBroker(i int) error {
	b := c.brokers[i]
	probe, err := kgo.NewClient(clientOpts(address(b.internal))...)
	if err != nil {
		return err
	}
	defer probe.Close()
	var ended error
	err = poll(c.t.Context(), brokerWithin, func() error {
		state, err := b.ctr.State(context.Background())
		if err == nil && !state.Running {
			ended = fmt.Errorf("ended with %d: %s", state.ExitCode, lastLines(b.Output(), 5))
			return nil
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), requestTimeout)
		defer cancel()
		known, err := kadm.NewClient(probe).ListBrokers(ctx)
		if err != nil {
			return err
		}
		for _, id := range known.NodeIDs() {
			if id == int32(i) {
				return nil
			}
		}
		return fmt.Errorf("known are only %v", known.NodeIDs())
	})
	if ended != nil {
		return ended
	}
	return err
}

// remove ends what a failed start has started, to free its memory before the next attempt.
func (c *Cluster) remove() {
	for _, b := range c.brokers {
		if b.Container != nil {
			_ = testcontainers.TerminateContainer(b.ctr, testcontainers.StopTimeout(0))
		}
	}
}

// newClusterID is 16 random bytes as Kafka writes a UUID.
func newClusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:])
	id[0] &^= 0x80 // so that it does not begin with "-", which Kafka's tools would take for an option
	return base64.RawURLEncoding.EncodeToString(id[:])
}

func newClient(t T, bootstrap string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(clientOpts(bootstrap), opts...)...)
	if err != nil {
		t.Fatalf("client of %s: %v", bootstrap, err)
	}
	t.Cleanup(client.Close)
	return client
}

// clientOpts make a client that looks again soon after a broker was away.
func clientOpts(bootstrap string) []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
	}
}

// shared holds the clusters that outlive a test.
var shared sharedClusters

// sharedClusters starts one cluster per version when it is first asked for.
type sharedClusters struct {
	mu        sync.Mutex // guards the fields below; held while a cluster starts, so that it starts once
	clusters  map[string]*Cluster
	authority *Authority
	owner     *program // whose cleanups end the clusters
}

// Shared is a single broker that all tests of the process share, for those that break nothing: they create topics of
// their own names. It can be reached over each of the secured listeners too ([Cluster.Over]), and all of its versions
// have certificates of the same authority. [Main] and [Program] end it.
func Shared(t T, version string) *Cluster {
	t.Helper()
	c, err := shared.cluster(version)
	if err != nil {
		t.Fatalf("shared Kafka %s: %v", version, err)
	}
	return c.For(t)
}

func (s *sharedClusters) cluster(version string) (*Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clusters[version]; c != nil {
		return c, nil
	}
	if s.owner == nil {
		s.owner, s.clusters = &program{ctx: context.Background()}, map[string]*Cluster{}
	}
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.owner.err = nil
		if s.authority == nil {
			s.authority = NewAuthority(s.owner, "testbed")
		}
		s.clusters[version] = Kafka(s.owner, version, WithSecurity(s.authority))
	}()
	<-done
	err = s.owner.err
	return s.clusters[version], err
}

func (s *sharedClusters) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != nil {
		s.owner.cleanUp()
	}
	s.owner, s.clusters, s.authority = nil, nil, nil
}
