package check

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func composed(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../compose.yaml"}, cli.WithInterpolation(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// Compose takes the file, nobody but this machine reaches what it starts, and what is mounted is there.
func TestCompose(t *testing.T) {
	project := composed(t)
	if len(project.Services) < 9 {
		t.Errorf("there are only %v", slices.Sorted(maps.Keys(project.Services)))
	}
	built := 0
	for name, service := range project.Services {
		image, tag, _ := strings.Cut(service.Image, ":")
		if tag == "" && image != "kferry" {
			t.Errorf("%s is whatever %s will be", name, image)
		}
		if image == "nats" && !holds(t, "../../go.mod", "github.com/nats-io/nats-server/v2 v"+tag) {
			t.Errorf("%s is %s, which kferry isn't tested with", name, tag)
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s listens on %q", name, port.HostIP)
			}
		}
		for _, v := range service.Volumes {
			if _, err := os.Stat(v.Source); v.Type == types.VolumeTypeBind && err != nil {
				t.Errorf("%s mounts %v", name, err)
			}
		}
		if service.Build != nil {
			built++
			if _, err := os.Stat(service.Build.Context + "/" + service.Build.Dockerfile); err != nil || service.Image != "kferry" {
				t.Errorf("%s is built by %v, as %s", name, err, service.Image)
			}
		}
		if service.Image == "kferry" {
			if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) || len(service.SecurityOpt) == 0 {
				t.Errorf("%s may write, or has capabilities", name)
			}
		}
	}
	if built != 1 { // two that make one image are in each other's way
		t.Errorf("%d services are built", built)
	}
}

// Whom the mirror, Prometheus and Grafana speak to is there, under the name and port that it has.
func TestServicesFindEachOther(t *testing.T) {
	services := composed(t).Services
	for _, c := range list(at(read(t, "../mirror.yaml"), "spec", "clusters")) {
		address := at(c, "bootstrapServers").(string)
		name, port, _ := strings.Cut(address, ":")
		s, there := services[name]
		listeners, advertised := s.Environment["KAFKA_LISTENERS"], s.Environment["KAFKA_ADVERTISED_LISTENERS"]
		if !there || !strings.Contains(*listeners+",", "INSIDE://:"+port+",") || !strings.Contains(*advertised+",", "INSIDE://"+address+",") {
			t.Errorf("nobody is at %s", address)
		}
	}
	scraped := 0
	for _, job := range list(at(read(t, "../prometheus/prometheus.yaml"), "scrape_configs")) {
		for _, config := range list(at(job, "dns_sd_configs")) {
			for _, name := range list(at(config, "names")) {
				scraped++
				if s := services[name.(string)]; s.Environment["KFERRY_HTTP"] == nil || *s.Environment["KFERRY_HTTP"] != ":8080" || at(config, "port") != 8080 {
					t.Errorf("%v is not at port %v", name, at(config, "port"))
				}
			}
		}
	}
	if scraped != 2 {
		t.Errorf("Prometheus scrapes %d services", scraped)
	}
	source := list(at(read(t, "../grafana/provisioning/datasources/prometheus.yaml"), "datasources"))[0]
	if _, there := services["prometheus"]; !there || at(source, "url") != "http://prometheus:9090" {
		t.Errorf("Grafana asks %v", at(source, "url"))
	}
}
