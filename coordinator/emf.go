package coordinator

import (
	"encoding/json"
	"fmt"
)

// EMFNamespace is what CloudWatch has the metrics under.
const EMFNamespace = "kferry"

// The embedded metric format is CloudWatch's way to take metrics from a log: a line of JSON, whose member _aws says which of the others
// are metrics and which are dimensions.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
type emf struct {
	AWS               emfMetadata `json:"_aws"`
	Installation      string
	DesiredWorkers    int
	BacklogBytes      int64
	BacklogPartitions int
	BacklogPerWorker  int64
	Reason            string // a property, for whoever reads the log
}

type emfMetadata struct {
	Timestamp         int64 // Unix ms
	CloudWatchMetrics []emfDirective
}

type emfDirective struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []emfMetric
}

type emfMetric struct{ Name, Unit string }

// EMF is the scale as a line of CloudWatch's embedded metric format.
func (s Scale) EMF(installation string) []byte {
	line, err := json.Marshal(emf{
		AWS: emfMetadata{Timestamp: s.DecidedAt.UnixMilli(), CloudWatchMetrics: []emfDirective{{
			Namespace: EMFNamespace, Dimensions: [][]string{{"Installation"}},
			Metrics: []emfMetric{{"DesiredWorkers", "Count"}, {"BacklogBytes", "Bytes"}, {"BacklogPartitions", "Count"}, {"BacklogPerWorker", "Bytes"}},
		}}},
		Installation:   installation,
		DesiredWorkers: s.Desired, BacklogBytes: s.BacklogBytes, BacklogPartitions: s.BacklogPartitions, BacklogPerWorker: s.BacklogPerWorker,
		Reason: s.Reason,
	})
	if err != nil {
		panic(fmt.Sprintf("coordinator: encode a flat struct: %v", err))
	}
	return append(line, '\n')
}
