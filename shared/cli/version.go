package cli

import (
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kferry/kferry/shared/connect"
)

const unknown = "unknown"

// built is the version that whoever builds gives, by -ldflags "-X github.com/kferry/kferry/shared/cli.built=1.0".
var built string

// version is the one given, else that of the module where it was built as one, else the commit.
func version() string {
	if built != "" {
		return built
	}
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return commit()
}

func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return unknown
}

// buildInfo is a metric of which only the labels matter.
func buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kferry_build_info", Help: "What this process was built from; always 1.",
		ConstLabels: prometheus.Labels{"version": version(), "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}

// appInfo says the same in MirrorMaker's way.
type appInfo struct{ started time.Time }

// Describe implements prometheus.Collector.
func (a appInfo) Describe(to chan<- *prometheus.Desc) { connect.Describe(to, connect.OfProcess()...) }

// Collect implements prometheus.Collector.
func (a appInfo) Collect(to chan<- prometheus.Metric) {
	connect.StartSeconds.Send(to, float64(a.started.UnixMilli())/1000, connect.WorkerID)
	connect.StartMillis.Send(to, float64(a.started.UnixMilli()), connect.WorkerID)
	connect.Version.Send(to, 1, connect.WorkerID, version())
	connect.Commit.Send(to, 1, connect.WorkerID, commit())
}
