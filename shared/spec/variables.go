package spec

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// A Variable is an environment variable that Load reads.
type Variable struct {
	Name, Default, Meaning string
}

// variables holds the text of every variable. Its tags are the documentation: Variables reads them.
type variables struct {
	Mirror           string `env:"KFERRY_MIRROR" meaning:"KafkaMirrorMaker2 resources or an mm2.properties: the path of the file, or the text itself"`
	SourceAlias      string `env:"KFERRY_SOURCE_ALIAS" meaning:"name of the cluster to copy from"`
	SourceServers    string `env:"KFERRY_SOURCE_BOOTSTRAP_SERVERS" meaning:"its addresses, host:port, separated by commas"`
	TargetAlias      string `env:"KFERRY_TARGET_ALIAS" meaning:"name of the cluster to copy to"`
	TargetServers    string `env:"KFERRY_TARGET_BOOTSTRAP_SERVERS" meaning:"its addresses, host:port, separated by commas"`
	Topics           string `env:"KFERRY_TOPICS" envDefault:".*" meaning:"topics to copy: regular expressions for whole names, separated by commas"`
	TopicsExclude    string `env:"KFERRY_TOPICS_EXCLUDE" envDefault:"mm2.*\\.internal,.*\\.replica,__.*" meaning:"topics to leave out; wins over KFERRY_TOPICS"`
	Policy           string `env:"KFERRY_REPLICATION_POLICY" envDefault:"default" meaning:"names on the target: default puts the source's alias in front, identity keeps them; MirrorMaker 2's classes are taken too"`
	Separator        string `env:"KFERRY_REPLICATION_POLICY_SEPARATOR" envDefault:"." meaning:"what stands between alias and topic"`
	Replication      string `env:"KFERRY_REPLICATION_FACTOR" envDefault:"-1" meaning:"of topics that are created; -1 is the broker's default"`
	Start            string `env:"KFERRY_START" envDefault:"earliest" meaning:"where to begin: earliest, latest, a time like 2026-11-24T08:00:00Z, or milliseconds since 1970"`
	Isolation        string `env:"KFERRY_ISOLATION_LEVEL" envDefault:"read_committed" meaning:"read_committed leaves out open and aborted transactions, read_uncommitted copies them"`
	Refresh          string `env:"KFERRY_REFRESH" envDefault:"5s" meaning:"how often to look for new topics and partitions"`
	ConfigExclude    string `env:"KFERRY_CONFIG_PROPERTIES_EXCLUDE" meaning:"topic settings that stay behind: regular expressions, separated by commas; MirrorMaker 2's list where not set"`
	SyncConfigs      string `env:"KFERRY_SYNC_TOPIC_CONFIGS" envDefault:"true" meaning:"whether settings of copies follow those of their sources"`
	SyncACLs         string `env:"KFERRY_SYNC_TOPIC_ACLS" envDefault:"true" meaning:"whether rights on copies follow those on their sources"`
	Groups           string `env:"KFERRY_GROUPS" envDefault:".*" meaning:"consumer groups whose positions are translated: regular expressions for whole names, separated by commas"`
	GroupsExclude    string `env:"KFERRY_GROUPS_EXCLUDE" envDefault:"console-consumer-.*,connect-.*,__.*" meaning:"groups to leave out; wins over KFERRY_GROUPS"`
	SyncGroups       string `env:"KFERRY_SYNC_GROUP_OFFSETS" envDefault:"false" meaning:"whether translated positions are committed on the target, for groups that nobody uses there"`
	SyncsLocation    string `env:"KFERRY_OFFSET_SYNCS_LOCATION" envDefault:"target" meaning:"cluster that holds the topic of offset-syncs: source or target"`
	Heartbeats       string `env:"KFERRY_HEARTBEATS" envDefault:"true" meaning:"whether heartbeats are written to the target, and those of the source copied whatever the patterns say"`
	TasksMax         string `env:"KFERRY_TASKS_MAX" envDefault:"0" meaning:"most partitions that are copied at one time, all workers together; 0 is no bound"`
	OnHold           string `env:"KFERRY_ON_HOLD" meaning:"what to do instead of holding a partition until a person decides: reason=hold, skip or restart, separated by commas; retention_gap=skip where not set"`
	OffsetsFactor    string `env:"KFERRY_OFFSETS_REPLICATION_FACTOR" envDefault:"-1" meaning:"of the topics that hold cursors, offset-syncs, checkpoints and heartbeats; -1 is the broker's default"`
	RateBytes        string `env:"KFERRY_RATE_BYTES" envDefault:"0" meaning:"most bytes a second that a flow reads from its source, all workers together, like 10MiB; 0 is no limit"`
	RateRecords      string `env:"KFERRY_RATE_RECORDS" envDefault:"0" meaning:"most records a second that a flow reads from its source; 0 is no limit"`
	TopicBytes       string `env:"KFERRY_RATE_BYTES_TOPICS" meaning:"the same for single topics, within the flow's limit: regular expressions for whole names, like orders=5MiB,invoices-.*=1MiB"`
	TopicRecords     string `env:"KFERRY_RATE_RECORDS_TOPICS" meaning:"the same in records, like orders=1000"`
	Targets          string `env:"KFERRY_CLUSTERS" meaning:"clusters that this process copies to, separated by commas; flows to others are left to other processes"`
	Secrets          string `env:"KFERRY_SECRETS_DIR" meaning:"directory of Secrets that ${secrets:namespace/name:key} refers to, mounted as namespace/name/key or name/key"`
	Name             string `env:"KFERRY_NAME" envDefault:"kferry" meaning:"name of the installation; tells those apart that share a NATS server"`
	NATSURL          string `env:"NATS_URL" meaning:"NATS servers with JetStream, separated by commas; kferry run brings its own where not set"`
	NATSContext      string `env:"NATS_CONTEXT" meaning:"name of a context of the nats CLI, for what the variables below and NATS_URL don't say"`
	NATSUser         string `env:"NATS_USER" meaning:"who one is to NATS; without a password it is a token"`
	NATSPassword     string `env:"NATS_PASSWORD" meaning:"password to NATS_USER"`
	NATSPasswordFile string `env:"NATS_PASSWORD_FILE" meaning:"file that holds it; like every file of NATS it is read again at each connect"`
	NATSToken        string `env:"NATS_TOKEN" meaning:"token that NATS asks for"`
	NATSTokenFile    string `env:"NATS_TOKEN_FILE" meaning:"file that holds it"`
	NATSCreds        string `env:"NATS_CREDS" meaning:"file of user credentials: a JWT and its seed"`
	NATSNKey         string `env:"NATS_NKEY" meaning:"file of a user's NKey seed"`
	NATSJWT          string `env:"NATS_JWT" meaning:"a user's JWT, with NATS_SEED"`
	NATSJWTFile      string `env:"NATS_JWT_FILE" meaning:"file that holds it"`
	NATSSeed         string `env:"NATS_SEED" meaning:"the NKey seed to NATS_JWT"`
	NATSSeedFile     string `env:"NATS_SEED_FILE" meaning:"file that holds it"`
	NATSCert         string `env:"NATS_CERT" meaning:"file of the certificate, PEM, that NATS is shown"`
	NATSKey          string `env:"NATS_KEY" meaning:"file of its key, PEM"`
	NATSCA           string `env:"NATS_CA" meaning:"file of the certificates, PEM, that NATS' own is checked by; the system's where not set"`
	NATSTLSFirst     string `env:"NATS_TLS_FIRST" meaning:"whether TLS begins before the server's greeting, as its handshake_first wants it"`
	NATSDomain       string `env:"NATS_DOMAIN" meaning:"JetStream's domain"`
	NATSAPIPrefix    string `env:"NATS_API_PREFIX" meaning:"beginning of the subjects of JetStream's API, where another account exports it"`
	NATSInboxPrefix  string `env:"NATS_INBOX_PREFIX" meaning:"beginning of the subjects that answers come to; _INBOX where not set"`
	NATSTimeout      string `env:"NATS_TIMEOUT" envDefault:"5s" meaning:"time to connect to NATS, and for each answer"`
	NATSReplicas     string `env:"NATS_REPLICAS" meaning:"servers of a NATS cluster that keep the queue: 1, 3 or 5; where not set 1, or as many as do already"`
	Data             string `env:"KFERRY_DATA" envDefault:"kferry-data" meaning:"directory of the queue that kferry run brings"`
	HTTP             string `env:"KFERRY_HTTP" envDefault:"127.0.0.1:8080" meaning:"where /metrics, /scale, /healthz, /readyz and a worker that is called listen, or off"`
	HTTPToken        string `env:"KFERRY_HTTP_TOKEN" meaning:"bearer token of whoever changes something over HTTP; off the loopback needed for that"`
	HTTPTokenFile    string `env:"KFERRY_HTTP_TOKEN_FILE" meaning:"file that holds it, read again when it changes"`
	HTTPCert         string `env:"KFERRY_HTTP_TLS_CERT" meaning:"file of the certificate, PEM, that makes it HTTPS, read again when it changes"`
	HTTPKey          string `env:"KFERRY_HTTP_TLS_KEY" meaning:"file of its key, PEM"`
	HTTPClientCA     string `env:"KFERRY_HTTP_TLS_CLIENT_CA" meaning:"file of certificates, PEM; whoever shows one of theirs needs no token"`
	HTTPOpen         string `env:"KFERRY_HTTP_OPEN" envDefault:"false" meaning:"whether anybody who reaches it may change things"`
	Push             string `env:"KFERRY_PUSH" envDefault:"false" meaning:"whether a worker claims when it is called at KFERRY_HTTP, and not by itself"`
	PushURL          string `env:"KFERRY_PUSH_URL" meaning:"where coordinators call push workers while work waits; nowhere where not set"`
	PushToken        string `env:"KFERRY_PUSH_TOKEN" meaning:"bearer token to KFERRY_PUSH_URL: what the workers have as KFERRY_HTTP_TOKEN"`
	PushTokenFile    string `env:"KFERRY_PUSH_TOKEN_FILE" meaning:"file that holds it, read again for each call"`
	PushMax          string `env:"KFERRY_PUSH_MAX" envDefault:"100" meaning:"calls to KFERRY_PUSH_URL that a coordinator has under way at one time"`
	RunTime          string `env:"KFERRY_RUN_TIME" envDefault:"30s" meaning:"longest run of a worker that is called, or has --once or --max-runs; what is left waits again"`
	RunBytes         string `env:"KFERRY_RUN_BYTES" envDefault:"256MiB" meaning:"the same in bytes of batches that have landed"`
	ECSAgent         string `env:"ECS_AGENT_URI" meaning:"set by Amazon ECS: where a worker asks that its task is protected while it holds leases"`
	MM2Metrics       string `env:"KFERRY_METRICS_MM2" envDefault:"true" meaning:"whether /metrics has MirrorMaker 2's and Strimzi's names too, about twelve series for each partition"`
	Slots            string `env:"KFERRY_SLOTS" envDefault:"1000" meaning:"leases that a worker holds at most"`
	Memory           string `env:"KFERRY_MEMORY" envDefault:"32MiB" meaning:"for all records in flight: bytes, or a number with KiB, MiB or GiB"`
	Lease            string `env:"KFERRY_LEASE" envDefault:"4s" meaning:"time after which a silent worker's leases go to others"`
	ScaleMin         string `env:"KFERRY_SCALE_MIN" envDefault:"0" meaning:"fewest workers that /scale asks for"`
	ScaleMax         string `env:"KFERRY_SCALE_MAX" envDefault:"10" meaning:"most workers that /scale asks for"`
	ScaleDrain       string `env:"KFERRY_SCALE_DRAIN" envDefault:"2m" meaning:"time in which a backlog is to be copied"`
	ScaleRate        string `env:"KFERRY_SCALE_RATE" envDefault:"50MiB" meaning:"what one worker is taken to copy in a second until workers have measured it"`
	ScaleDown        string `env:"KFERRY_SCALE_DOWN" envDefault:"5m" meaning:"how long fewer workers must have been enough before /scale asks for fewer"`
	ScaleIdle        string `env:"KFERRY_SCALE_IDLE" envDefault:"2m" meaning:"how long there must have been no work before it asks for none"`
	EMF              string `env:"KFERRY_EMF" envDefault:"false" meaning:"whether a coordinator writes what /scale says to standard output once a minute, for CloudWatch (embedded metric format)"`
	LogLevel         string `env:"KFERRY_LOG_LEVEL" envDefault:"info" meaning:"debug, info, warn or error"`
	LogFormat        string `env:"KFERRY_LOG_FORMAT" envDefault:"auto" meaning:"text or json; auto is text on a terminal"`
}

const (
	leastMemory  = 8 * MiB // two batches of the usual largest size in each half, and room to assemble them
	leastLease   = 2 * time.Second
	leastRefresh = time.Second
	mostSlots    = 100_000
)

// Variables is the table of all variables, in the order in which they are documented.
func Variables() []Variable {
	var table []Variable
	fields := reflect.TypeFor[variables]()
	for i := range fields.NumField() {
		tag := fields.Field(i).Tag
		table = append(table, Variable{tag.Get("env"), tag.Get("envDefault"), tag.Get("meaning")})
		if tag.Get("env") == "KFERRY_TARGET_BOOTSTRAP_SERVERS" {
			table = append(table, loginTable()...)
		}
	}
	return table
}

// An environment is what variables say, and which of them are set.
type environment struct {
	variables
	given map[string]string
}

// readEnvironment reads what has the form of os.Environ.
func readEnvironment(environ []string, r *report) environment {
	e := environment{given: map[string]string{}}
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		e.given[name] = text
	}
	if err := env.ParseWithOptions(&e.variables, env.Options{Environment: e.given}); err != nil {
		panic(fmt.Sprintf("spec: reading text into text: %v", err)) // every field is a string
	}
	e.checkNames(r)
	return e
}

// loginLike finds names that look like those of a login: a misspelt one can't be passed over.
var loginLike = regexp.MustCompile(`^KFERRY_(SOURCE|TARGET)_(SECURITY|SASL|SSL|TLS|OAUTH|USER|PASSWORD|PROPERT)`)

// checkNames reports variables that are empty (the default would step in, which nobody who writes NAME= expects), and those
// that nobody reads.
func (e environment) checkNames(r *report) {
	var known []string
	for _, v := range Variables() {
		known = append(known, v.Name)
		if text, set := e.given[v.Name]; set && strings.TrimSpace(text) == "" {
			r.wrongf(e.value(v.Name, text), "is set but empty; give it a value or unset it")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.given)) {
		switch {
		case !strings.HasPrefix(name, "KFERRY_") || slices.Contains(known, name):
		case loginLike.MatchString(name):
			r.wrongf(e.value(name, ""), "there is no such variable%s", cmp.Or(suggest(name, likeLogin(known)), "; see the table of variables, or set it as a client property in "+name[:len(sourcePrefix)]+"PROPERTIES"))
		default:
			r.warn(e.value(name, ""), "no such variable, it has no effect%s", suggest(name, known))
		}
	}
}

// value is a variable's text, set where it isn't empty: the empty one is already reported.
func (e environment) value(name, text string) value {
	return value{path: name, text: text, set: strings.TrimSpace(text) != ""}
}

func (e environment) settings(r *report) Settings {
	return Settings{
		NATS:       e.nats(r),
		Data:       e.Data,
		HTTP:       e.http(r),
		Slots:      read(r, e.value("KFERRY_SLOTS", e.Slots), parseCount(1, mostSlots), 0),
		Memory:     read(r, e.value("KFERRY_MEMORY", e.Memory), parseMemory, 0),
		LeaseTime:  read(r, e.value("KFERRY_LEASE", e.Lease), parseDuration(leastLease), 0),
		Front:      e.front(r),
		WakeUps:    e.wakeUps(r),
		MM2Metrics: read(r, e.value("KFERRY_METRICS_MM2", e.MM2Metrics), parseBool, true),
		Scale:      e.scale(r),
		EMF:        read(r, e.value("KFERRY_EMF", e.EMF), parseBool, false),
		LogLevel:   read(r, e.value("KFERRY_LOG_LEVEL", e.LogLevel), parseOneOf("debug", "info", "warn", "error"), ""),
		LogFormat:  read(r, e.value("KFERRY_LOG_FORMAT", e.LogFormat), parseOneOf("auto", "text", "json"), ""),
	}
}

// limits are those of every flow that has none of its own.
func (e environment) limits() limitTexts {
	config := settings{}
	for key, name := range limitKeys {
		config[key] = e.value(name, e.text(name))
	}
	return limitsIn(config)
}

func (e environment) name(r *report) string {
	return read(r, e.value("KFERRY_NAME", e.Name), parseName, "")
}

// targets are the clusters to copy to, nil for all.
func (e environment) targets(s Spec, r *report) []string {
	given := e.value("KFERRY_CLUSTERS", e.Targets)
	if !given.set {
		return nil
	}
	var known []string
	for _, f := range s.Flows {
		known = append(known, f.Target)
	}
	for _, h := range s.Heartbeats {
		known = append(known, h.Target)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	targets := splitList(given.text)
	for _, alias := range targets {
		if !slices.Contains(known, alias) && len(r.problems) == 0 {
			r.wrong(given, fmt.Errorf("no flow leads to %q; known are %s%s", alias, strings.Join(known, ", "), suggest(alias, known)))
		}
	}
	return targets
}

// flowVariables are those that describe the one flow of plain variables.
var flowVariables = []string{
	"KFERRY_SOURCE_ALIAS", "KFERRY_SOURCE_BOOTSTRAP_SERVERS", "KFERRY_TARGET_ALIAS", "KFERRY_TARGET_BOOTSTRAP_SERVERS",
	"KFERRY_TOPICS", "KFERRY_TOPICS_EXCLUDE", "KFERRY_REPLICATION_POLICY", "KFERRY_REPLICATION_POLICY_SEPARATOR",
	"KFERRY_REPLICATION_FACTOR", "KFERRY_START", "KFERRY_ISOLATION_LEVEL", "KFERRY_REFRESH",
	"KFERRY_CONFIG_PROPERTIES_EXCLUDE", "KFERRY_SYNC_TOPIC_CONFIGS", "KFERRY_SYNC_TOPIC_ACLS", "KFERRY_GROUPS", "KFERRY_GROUPS_EXCLUDE",
	"KFERRY_SYNC_GROUP_OFFSETS", "KFERRY_OFFSET_SYNCS_LOCATION", "KFERRY_HEARTBEATS", "KFERRY_TASKS_MAX", "KFERRY_ON_HOLD", "KFERRY_OFFSETS_REPLICATION_FACTOR",
}

// givenFlow lists the variables of the plain flow that are set.
func (e environment) givenFlow() []string {
	return slices.DeleteFunc(slices.Concat(flowVariables, e.loginNames()), func(name string) bool {
		_, given := e.given[name]
		return !given
	})
}

// plainKeys are the keys of MirrorMaker's that variables stand for.
var plainKeys = map[string]string{
	"topics":                                "KFERRY_TOPICS",
	"topics.exclude":                        "KFERRY_TOPICS_EXCLUDE",
	"replication.policy.class":              "KFERRY_REPLICATION_POLICY",
	"replication.policy.separator":          "KFERRY_REPLICATION_POLICY_SEPARATOR",
	"replication.factor":                    "KFERRY_REPLICATION_FACTOR",
	"consumer.auto.offset.reset":            "KFERRY_START",
	"consumer.isolation.level":              "KFERRY_ISOLATION_LEVEL",
	"refresh.topics.interval.seconds":       "KFERRY_REFRESH",
	"config.properties.exclude":             "KFERRY_CONFIG_PROPERTIES_EXCLUDE",
	"sync.topic.configs.enabled":            "KFERRY_SYNC_TOPIC_CONFIGS",
	"sync.topic.acls.enabled":               "KFERRY_SYNC_TOPIC_ACLS",
	"groups":                                "KFERRY_GROUPS",
	"groups.exclude":                        "KFERRY_GROUPS_EXCLUDE",
	"sync.group.offsets.enabled":            "KFERRY_SYNC_GROUP_OFFSETS",
	"offset-syncs.topic.location":           "KFERRY_OFFSET_SYNCS_LOCATION",
	"emit.heartbeats.enabled":               "KFERRY_HEARTBEATS",
	"heartbeats.replication.enabled":        "KFERRY_HEARTBEATS",
	"tasks.max":                             "KFERRY_TASKS_MAX",
	"kferry.on.hold":                        "KFERRY_ON_HOLD",
	"offset.storage.replication.factor":     "KFERRY_OFFSETS_REPLICATION_FACTOR",
	"offset-syncs.topic.replication.factor": "KFERRY_OFFSETS_REPLICATION_FACTOR",
	"checkpoints.topic.replication.factor":  "KFERRY_OFFSETS_REPLICATION_FACTOR",
	"heartbeats.topic.replication.factor":   "KFERRY_OFFSETS_REPLICATION_FACTOR",
}

// limitKeys are those that variables set for every flow, in whatever form it comes.
var limitKeys = map[string]string{
	"kferry.rate.bytes": "KFERRY_RATE_BYTES", "kferry.rate.records": "KFERRY_RATE_RECORDS",
	"kferry.rate.bytes.topics": "KFERRY_RATE_BYTES_TOPICS", "kferry.rate.records.topics": "KFERRY_RATE_RECORDS_TOPICS",
}

// text is what a variable holds, or its default.
func (e environment) text(name string) string {
	fields := reflect.TypeFor[variables]()
	for i := range fields.NumField() {
		if fields.Field(i).Tag.Get("env") == name {
			return reflect.ValueOf(e.variables).Field(i).String()
		}
	}
	panic("spec: no variable " + name)
}

// input is the flow in plain variables.
func (e environment) input(r *report) input {
	source, target := e.cluster("SOURCE", r), e.cluster("TARGET", r)
	for _, needed := range []value{source.alias, source.servers, target.alias, target.servers} {
		if _, given := e.given[needed.path]; !given {
			r.wrongf(needed, "is not set; a flow needs an alias and the addresses of both clusters")
		}
	}
	config := settings{}
	for key, name := range plainKeys {
		config[key] = e.value(name, e.text(name))
	}
	at := e.value("KFERRY_SOURCE_ALIAS", e.SourceAlias)
	all := connector{at, Running, config}
	return input{
		clusters: []*cluster{source, target},
		mirrors:  []mirror{{form: plain, at: at, source: source.alias, target: target.alias, sourceConnector: all, checkpointConnector: all, heartbeatConnector: all}},
	}
}
