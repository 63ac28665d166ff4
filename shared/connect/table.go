package connect

import (
	"slices"

	"github.com/kferry/kferry/shared/mm2"
)

// Tags of MirrorMaker's own metrics.
var (
	partitionTags  = []string{"source", "target", "topic", "partition"}
	checkpointTags = []string{"source", "target", "group", "topic", "partition"}
)

// What workers tell of a partition of a target topic.
var (
	RecordCount = ofSource("record-count", "Records of the partition that the target has acknowledged to this process.")
	RecordRate  = ofSource("record-rate", "The same a second, over 30 to 60 s.")
	ByteCount   = ofSource("byte-count", "Bytes of the record batches that the target has acknowledged to this process, as they were written: compressed, with keys and headers.")
	ByteRate    = ofSource("byte-rate", "The same a second, over 30 to 60 s.")
	RecordAge   = timesOf(ofSource, "record-age-ms", "How old the newest record of a batch was when it had been read, in milliseconds")
	Latency     = timesOf(ofSource, "replication-latency-ms", "How old the newest record of a batch was when the target acknowledged it, in milliseconds")
)

// CheckpointLatency is what workers tell of a consumer group's partition.
var CheckpointLatency = timesOf(ofCheckpoint, "checkpoint-latency-ms", "From reading the group's offset to the acknowledgement of its checkpoint, in milliseconds")

// What workers tell of a flow.
var (
	IncomingBytes   = metric("consumer", "consumer", "incoming-byte-total", "Bytes of records that the process has read from the flow's source.", "client-id")
	OutgoingBytes   = metric("producer", "producer", "outgoing-byte-total", "Bytes of record batches that the flow's target has acknowledged to the process.", "client-id")
	RecordsPolled   = metric("connect", "source-task", "source-record-poll-total", "Records that the process has read of the flow.", "connector", "task")
	RecordsWritten  = metric("connect", "source-task", "source-record-write-total", "Records of the flow that its target has acknowledged to the process.", "connector", "task")
	ActiveRecords   = &Metric{[]form{activeForm, newForm("kafka_connect_source_task_metrics_source_record_active_count", activeHelp, []string{"connector", "task"}, false)}}
	ActiveObject    = &Metric{[]form{activeForm}} // the same, see TaskObject
	CommitAverage   = metric("connect", "connector-task", "offset-commit-avg-time-ms", "How long a commit of a cursor took, over 30 to 60 s.", "connector", "task")
	CommitMax       = metric("connect", "connector-task", "offset-commit-max-time-ms", "The longest commit of a cursor, over 30 to 60 s.", "connector", "task")
	CommitSuccesses = metric("connect", "connector-task", "offset-commit-success-percentage", "Share of the commits that succeeded, 0 to 1, over 30 to 60 s.", "connector", "task")
	CommitFailures  = metric("connect", "connector-task", "offset-commit-failure-percentage", "Share of the commits that failed, 0 to 1, over 30 to 60 s.", "connector", "task")
)

const activeHelp = "Records of the flow that are read and not yet acknowledged."

var activeForm = newForm("kafka_connect_source_task_source_record_active_count", activeHelp, []string{"connector", "task", objectName}, true)

// What workers tell of themselves.
var (
	BufferAvailable = metric("producer", "producer", "buffer-available-bytes", "What is free of KFERRY_MEMORY, which all flows of the process share.", "client-id")
	TaskCount       = metric("connect", "connect-worker", "task-count", "Leases that the process holds.")
	AssignedTasks   = metric("connect", "connect-coordinator", "assigned-tasks", "Leases that the process holds.", "client-id")
	Rebalancing     = metric("connect", "connect-worker-rebalance", "rebalancing", "Always 0: leases move one by one, and nothing stands still meanwhile.")
	Rebalances      = metric("connect", "connect-worker-rebalance", "completed-rebalances-total", "Always 0.")
)

// What one coordinator tells.
var (
	ConnectorCount     = metric("connect", "connect-worker", "connector-count", "Connectors that the specification has.")
	AssignedConnectors = metric("connect", "connect-coordinator", "assigned-connectors", "Connectors that the specification has.", "client-id")
	Status             = forms("kafka_connect_connector_status", "kafka_connect_connector_task_metrics_status_info",
		"1 beside what the connector is: running, paused, stopped, or failed while a partition waits for a decision or the flow fails.", []string{"connector", "task", "status"})
	TotalTasks      = ofConnector("total", "Partitions of the flow.")
	RunningTasks    = ofConnector("running", "Partitions of the flow that are copied, or copied up to their end.")
	PausedTasks     = ofConnector("paused", "Partitions that are behind while the flow is paused.")
	FailedTasks     = ofConnector("failed", "Partitions that are held, wait for a try after a failure, or whose cluster doesn't answer.")
	UnassignedTasks = ofConnector("unassigned", "Partitions whose target is still to be created.")
	RecordsLag      = metric("consumer", "consumer-fetch-manager", "records-lag", "Source offsets that are still to be looked at; topic is the source's.", "client-id", "topic", "partition")
)

// What every process tells.
var (
	StartSeconds = &Metric{[]form{newForm("kafka_connect_start_time_seconds", "When the process started, in seconds since 1970.", []string{"client-id"}, true)}}
	StartMillis  = &Metric{[]form{newForm("kafka_connect_app_info_start_time_ms", "When the process started, in milliseconds since 1970.", []string{"client-id"}, false)}}
	Version      = appInfo("version_info", "version_info", "The version of kferry; always 1.", "version")
	Commit       = appInfo("commit_id_info", "commit_id_info", "The commit that kferry was built from; always 1.", "commit-id")
)

// Times are a statistic of MirrorMaker's: what was observed last, and over the last 30 to 60 s.
type Times struct {
	Last, Min, Max, Avg *Metric
}

func ofSource(attribute, help string) *Metric {
	return mirror(mm2.SourceConnector, attribute, help, partitionTags...)
}

func ofCheckpoint(attribute, help string) *Metric {
	return mirror("MirrorCheckpointConnector", attribute, help, checkpointTags...)
}

func timesOf(of func(attribute, help string) *Metric, attribute, help string) Times {
	return Times{
		Last: of(attribute, help+"; the last one."), Min: of(attribute+"-min", help+"; the least of 30 to 60 s."),
		Max: of(attribute+"-max", help+"; the most of 30 to 60 s."), Avg: of(attribute+"-avg", help+"; the average of 30 to 60 s."),
	}
}

func ofConnector(state, help string) *Metric {
	return metric("connect", "connect-worker", "connector-"+state+"-task-count", help, "connector")
}

func appInfo(jmx, reporter, help string, tags ...string) *Metric {
	return forms("kafka_connect_"+jmx, "kafka_connect_app_info_"+reporter, help, append([]string{"client-id"}, tags...))
}

// All are the metrics of the statistic.
func (t Times) All() []*Metric { return []*Metric{t.Last, t.Min, t.Max, t.Avg} }

// OfWorker are the metrics that a worker serves.
func OfWorker() []*Metric {
	return slices.Concat(
		[]*Metric{RecordCount, RecordRate, ByteCount, ByteRate}, RecordAge.All(), Latency.All(), CheckpointLatency.All(),
		[]*Metric{IncomingBytes, OutgoingBytes, RecordsPolled, RecordsWritten, ActiveRecords, CommitAverage, CommitMax, CommitSuccesses, CommitFailures},
		[]*Metric{BufferAvailable, TaskCount, AssignedTasks, Rebalancing, Rebalances},
	)
}

// OfCoordinator are the metrics that a coordinator serves.
func OfCoordinator() []*Metric {
	return []*Metric{ConnectorCount, AssignedConnectors, Status, TotalTasks, RunningTasks, PausedTasks, FailedTasks, UnassignedTasks, RecordsLag}
}

// OfProcess are the metrics that every process serves.
func OfProcess() []*Metric { return []*Metric{StartSeconds, StartMillis, Version, Commit} }
