// Package connect serves metrics under the names that MirrorMaker 2's have in Prometheus, so that what was built to watch it goes on.
//
// There are two ways to Prometheus, and Strimzi ships dashboards for both: the JMX exporter with Strimzi's rules, and Strimzi's metrics
// reporter. They name most metrics differently, and both names are served:
//
//	MBean or group                        JMX exporter                          metrics reporter
//	consumer-metrics, incoming-byte-total kafka_consumer_incoming_byte_total    kafka_consumer_consumer_metrics_incoming_byte
//	connector-task-metrics, status        kafka_connect_connector_status        kafka_connect_connector_task_metrics_status_info
//	label of the tag client-id            clientid="\"A->B|…\""                 client_id="A->B|…"
//	MirrorSourceConnector, record-count   kafka_connect_mirror_mirrorsourceconnector_record_count (both)
//
// What the metrics of a name say of kferry is told in their Help. What can't be said truthfully has no metric here.
package connect

import (
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/mm2"
	"github.com/kferry/kferry/shared/spec"
)

// A Metric is one attribute of Kafka's, under all its names.
type Metric struct {
	forms []form
}

// A form is one name of a metric.
type form struct {
	name   string
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	tags   []string
	quoted bool // label values look as JMX has them
}

// metric is an attribute of a group of the domain kafka.<domain>, with the tags that its group has.
func metric(domain, group, attribute, help string, tags ...string) *Metric {
	jmx := "kafka_connect_" + group
	if strings.HasPrefix(group+"-", domain+"-") {
		jmx = "kafka_" + group
	}
	reporter := "kafka_" + domain + "_" + group + "_metrics_" + strings.TrimSuffix(attribute, "-total")
	return forms(jmx+"_"+attribute, reporter, help, tags)
}

func forms(jmx, reporter, help string, tags []string) *Metric {
	return &Metric{[]form{newForm(jmx, help, tags, true), newForm(reporter, help, tags, false)}}
}

// mirror is an attribute of one of MirrorMaker's connectors. It has one name, and so label values as they are.
func mirror(connector, attribute, help string, tags ...string) *Metric {
	return &Metric{[]form{newForm("kafka_connect_mirror_"+strings.ToLower(connector)+"_"+attribute, help, tags, false)}}
}

func newForm(name, help string, tags []string, quoted bool) form {
	f := form{name: strings.ReplaceAll(name, "-", "_"), kind: prometheus.GaugeValue, tags: tags, quoted: quoted}
	if strings.HasSuffix(f.name, "_total") { // the exporter's counters; the reporter has none, and names none so
		f.kind = prometheus.CounterValue
	}
	labels := make([]string, len(tags))
	for i, tag := range tags {
		labels[i] = strings.ReplaceAll(tag, "-", "_")
		if quoted && tag == "client-id" {
			labels[i] = "clientid" // Strimzi's rules say clientId, in lower case
		}
	}
	f.desc = prometheus.NewDesc(f.name, help, labels, nil)
	return f
}

// Names are those in Prometheus.
func (m *Metric) Names() []string {
	names := make([]string, len(m.forms))
	for i, f := range m.forms {
		names[i] = f.name
	}
	return names
}

// Send says a value under all names. The values of the tags are in the order of the metric's.
func (m *Metric) Send(to chan<- prometheus.Metric, value float64, tags ...string) {
	for _, f := range m.forms {
		to <- prometheus.MustNewConstMetric(f.desc, f.kind, value, f.labels(tags)...)
	}
}

// labels are the values of the labels that this form has.
func (f form) labels(tags []string) []string {
	tags = tags[:len(f.tags)]
	if !f.quoted {
		return tags
	}
	labels := slices.Clone(tags)
	for i := range labels {
		if f.tags[i] != objectName {
			labels[i] = quote(labels[i])
		}
	}
	return labels
}

// Describe is for collectors.
func Describe(to chan<- *prometheus.Desc, metrics ...*Metric) {
	for _, m := range metrics {
		for _, f := range m.forms {
			to <- f.desc
		}
	}
}

var unquoted = regexp.MustCompile(`^[\w\-%. \t]*$`)

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `*`, `\*`, `?`, `\?`, "\n", `\n`)

// quote writes a value as it stands in an MBean's name: what has other characters than these is quoted, and dashboards ask for that.
func quote(value string) string {
	if unquoted.MatchString(value) {
		return value
	}
	return `"` + escapes.Replace(value) + `"`
}

// What a connector may be.
const (
	Running = "running"
	Failed  = "failed"
)

// Task is the number that a flow's tasks have: kferry has no such tasks, but one answer for all that a flow does in a process.
const Task = "0"

// Connector is how one of a flow's connectors is called: as Strimzi does, also where the input's own MirrorMaker would call those of
// all flows the same.
func Connector(f spec.Flow, class string) string { return f.Name() + "." + class }

// ConsumerID is the client id of what reads a flow's source.
func ConsumerID(f spec.Flow) string {
	return f.Name() + "|" + f.Connector + "-" + Task + "|replication-consumer"
}

// ProducerID is the client id of what writes to a flow's target.
func ProducerID(f spec.Flow) string {
	return "connector-producer-" + Connector(f, mm2.SourceConnector) + "-" + Task
}

// WorkerID is the client id of what belongs to no flow.
const WorkerID = "kferry"

// AnyProducerID is that of what all flows of a process share.
const AnyProducerID = "connector-producer-all->all." + mm2.SourceConnector + "-" + Task

// objectName is a label that the exporter gives where a rule doesn't name all: the whole name of the MBean.
const objectName = "_objectname"

// TaskObject is what Strimzi's dashboard for its metrics reporter, which serves no such thing, asks ActiveObject for: task 1's MBean.
func TaskObject(f spec.Flow) string {
	return `kafka.connect<type=source-task-metrics, connector="` + Connector(f, mm2.SourceConnector) + `", task=1><>source-record-active-count`
}
