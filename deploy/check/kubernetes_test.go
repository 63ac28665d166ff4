package check

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const overlays = "../kubernetes/overlays"

// built is what "kubectl kustomize" makes of a folder.
func built(t *testing.T, dir string) (objects []object) {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	for _, r := range made.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		var o map[string]any
		if err := yaml.Unmarshal(text, &o); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	return objects
}

// each runs a test on what the base and each overlay become.
func each(t *testing.T, test func(t *testing.T, name string, objects []object)) {
	t.Helper()
	entries, err := os.ReadDir(overlays)
	if err != nil || len(entries) < 5 {
		t.Fatalf("overlays: %d, %v", len(entries), err)
	}
	folders := []string{"../kubernetes/base"}
	for _, e := range entries {
		folders = append(folders, filepath.Join(overlays, e.Name()))
	}
	folders = append(folders, folderOf(t, "monitored", "resources: [%s/base]\ncomponents: [%[1]s/components/prometheus-operator]\nnamespace: kferry\n", nil))
	for _, dir := range folders {
		t.Run(filepath.Base(dir), func(t *testing.T) { test(t, filepath.Base(dir), built(t, dir)) })
	}
}

// folderOf is a folder of somebody's own: a kustomization, in which %s is the way to deploy/kubernetes, and other files.
func folderOf(t *testing.T, name, kustomization string, files map[string]string) string {
	t.Helper()
	mine, err := filepath.Abs(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := filepath.Abs("../kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	if ours, err = filepath.Rel(mine, ours); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"kustomization.yaml": fmt.Sprintf(kustomization, ours)}
	maps.Copy(all, files)
	if err := os.Mkdir(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(mine, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return mine
}

// Every object has the form that its API has, and no field that it doesn't know.
func TestKubernetesObjectsAreValid(t *testing.T) {
	each(t, func(t *testing.T, _ string, objects []object) {
		for _, o := range objects {
			if err := valid(t, o); err != nil {
				t.Errorf("%s: %v", o, err)
			}
		}
	})
}

// The schemas are no formality: each of these is refused.
func TestMistakesAreFound(t *testing.T) {
	for of, mistake := range map[string]func(o object){
		"base Deployment worker":          func(o object) { spec(o)["replicaz"] = 1 },
		"base Deployment coordinator":     func(o object) { delete(spec(o), "selector") },
		"base NetworkPolicy kferry":       func(o object) { spec(o)["policyTypes"] = "Egress" },
		"base PodDisruptionBudget worker": func(o object) { spec(o)["maxAvailable"] = 1 },
		"jobs CronJob worker":             func(o object) { spec(o)["schedule"] = 15 },
		"keda ScaledObject worker":        func(o object) { spec(o)["minReplicaCount"] = "none" },
		"keda-jobs ScaledJob worker":      func(o object) { spec(o)["scalingStrategie"] = map[string]any{} },
		"monitored PodMonitor kferry":     func(o object) { spec(o)["podMetricsEndpoint"] = []any{} },
		"knative Service worker":          func(o object) { at(spec(o), "template", "spec").(map[string]any)["containerConcurrenci"] = 1 },
	} {
		found := false
		each(t, func(t *testing.T, name string, objects []object) {
			for _, o := range objects {
				if name+" "+o.String() == of && o.is() != "v1 Service" {
					found = true
					mistake(o)
					if valid(t, o) == nil {
						t.Errorf("a mistake in %s isn't found", of)
					}
				}
			}
		})
		if !found {
			t.Errorf("there is no %s", of)
		}
	}
}

func spec(o object) map[string]any { return at(o, "spec").(map[string]any) }

// template is where an object has that of its pods, or nil.
func template(o object) map[string]any {
	path := map[string][]string{
		"Deployment": {"spec", "template"}, "CronJob": {"spec", "jobTemplate", "spec", "template"}, "ScaledJob": {"spec", "jobTargetRef", "template"},
	}[o.text("kind")]
	if o.is() == "serving.knative.dev/v1 Service" {
		path = []string{"spec", "template"}
	}
	if path == nil {
		return nil
	}
	return at(o, path...).(map[string]any)
}

// Pods meet the restricted standard and more: a root that nobody writes to, no token for the API server, bounds, probes.
func TestPodsAreRestricted(t *testing.T) {
	each(t, func(t *testing.T, _ string, objects []object) {
		pods := 0
		for _, o := range objects {
			pod := at(template(o), "spec")
			if pod == nil {
				continue
			}
			pods++
			want := map[string]any{"automountServiceAccountToken": false}
			for _, container := range list(at(pod, "containers")) {
				for path, value := range map[string]any{
					"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities.drop": []any{"ALL"},
					"runAsNonRoot": true, "seccompProfile.type": "RuntimeDefault",
				} {
					got := at(container, append([]string{"securityContext"}, strings.Split(path, ".")...)...)
					if got == nil { // the pod's own holds
						got = at(pod, append([]string{"securityContext"}, strings.Split(path, ".")...)...)
					}
					if fmt.Sprint(got) != fmt.Sprint(value) {
						t.Errorf("%s: %s is %v", o, path, got)
					}
				}
				for _, needed := range []string{
					"resources.limits.memory", "resources.limits.cpu", "resources.requests.memory", "resources.requests.cpu",
					"livenessProbe.httpGet.path", "readinessProbe.httpGet.path",
				} {
					if at(container, strings.Split(needed, ".")...) == nil {
						t.Errorf("%s has no %s", o, needed)
					}
				}
			}
			for name, value := range want {
				if got := at(pod, name); got != value {
					t.Errorf("%s: %s is %v", o, name, got)
				}
			}
		}
		if pods < 2 {
			t.Errorf("there are %d kinds of pods", pods)
		}
	})
}

// Whatever an object names is there, and nobody is given rights on the API server.
func TestNamesLeadSomewhere(t *testing.T) {
	external := []string{"kafka", "nats-coordinator", "nats-worker", "push"} // Secrets that people make, by the README
	each(t, func(t *testing.T, _ string, objects []object) {
		there, labels := map[string]bool{}, []map[string]any{}
		for _, o := range objects {
			there[o.String()] = true
			if strings.Contains(o.text("kind"), "Role") {
				t.Errorf("%s gives rights, and nobody needs any", o)
			}
			if pod := template(o); pod != nil {
				labels = append(labels, at(pod, "metadata", "labels").(map[string]any))
			}
			if o.text("metadata", "namespace") != "kferry" && o.text("kind") != "Namespace" {
				t.Errorf("%s is in the namespace %q", o, o.text("metadata", "namespace"))
			}
		}
		for _, o := range objects {
			for _, selector := range []any{at(o, "spec", "selector", "matchLabels"), at(o, "spec", "podSelector", "matchLabels")} {
				if selector != nil && !slices.ContainsFunc(labels, func(of map[string]any) bool { return within(selector.(map[string]any), of) }) {
					t.Errorf("%s selects no pod", o)
				}
			}
			if o.is() == "v1 Service" && !slices.ContainsFunc(labels, func(of map[string]any) bool {
				return within(at(o, "spec", "selector").(map[string]any), of)
			}) {
				t.Errorf("%s selects no pod", o)
			}
			if to := at(o, "spec", "scaleTargetRef", "name"); to != nil && !there[fmt.Sprint("Deployment ", to)] {
				t.Errorf("%s scales %v, which is not there", o, to)
			}
			if pod, _ := at(template(o), "spec").(map[string]any); pod != nil {
				lead(t, o, pod, there, external)
			}
		}
	})
}

func within(some, all map[string]any) bool {
	for name, value := range some {
		if all[name] != value {
			return false
		}
	}
	return len(some) > 0
}

// lead follows the names in a pod.
func lead(t *testing.T, o object, pod map[string]any, there map[string]bool, external []string) {
	t.Helper()
	if account := fmt.Sprint("ServiceAccount ", pod["serviceAccountName"]); !there[account] {
		t.Errorf("%s: there is no %s", o, account)
	}
	volumes := map[string]bool{}
	for _, v := range list(pod["volumes"]) {
		volumes[at(v, "name").(string)] = true
		if name := at(v, "configMap", "name"); name != nil && !there[fmt.Sprint("ConfigMap ", name)] {
			t.Errorf("%s: there is no ConfigMap %v", o, name)
		}
		if name := at(v, "secret", "secretName"); name != nil && !slices.Contains(external, name.(string)) {
			t.Errorf("%s: nobody is told to make the Secret %v", o, name)
		}
	}
	for _, c := range list(pod["containers"]) {
		if at(c, "image") != "kferry" {
			t.Errorf("%s: the image is %v, which an images: of kustomize doesn't find", o, at(c, "image"))
		}
		mounted := map[string]bool{}
		for _, m := range list(at(c, "volumeMounts")) {
			if name := at(m, "name").(string); !volumes[name] {
				t.Errorf("%s mounts %s, which is no volume", o, name)
			} else {
				mounted[name] = true
			}
		}
		if !maps.Equal(mounted, volumes) {
			t.Errorf("%s has volumes %v and mounts %v", o, volumes, mounted)
		}
		for _, from := range list(at(c, "envFrom")) {
			if name := at(from, "configMapRef", "name"); !there[fmt.Sprint("ConfigMap ", name)] {
				t.Errorf("%s: there is no ConfigMap %v", o, name)
			}
		}
	}
}

// An overlay of one's own replaces mirror, image and address, and pods follow by the new names: in kinds too that kustomize doesn't know.
func TestOverlayOfOnesOwn(t *testing.T) {
	entries, err := os.ReadDir(overlays)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			mine := folderOf(t, "mine", "resources: [%s/overlays/"+e.Name()+"]\nnamespace: kferry\n"+
				"images: [{name: kferry, newName: registry.example.com/kferry, newTag: '1'}]\nconfigMapGenerator:\n"+
				"  - {name: mirror, behavior: replace, files: [mirror.yaml]}\n  - {name: kferry, behavior: merge, literals: ['NATS_URL=nats://mine:4222']}\n",
				map[string]string{"mirror.yaml": "mine"})
			objects := built(t, mine)
			configs := map[string]object{}
			for _, o := range objects {
				if o.text("kind") == "ConfigMap" {
					configs[o.text("metadata", "name")] = o
				}
			}
			for _, o := range objects {
				pod, _ := at(template(o), "spec").(map[string]any)
				if pod == nil {
					continue
				}
				c := list(pod["containers"])[0]
				of := configs[fmt.Sprint(at(list(at(c, "envFrom"))[0], "configMapRef", "name"))]
				var mirror object
				for _, v := range list(pod["volumes"]) {
					if at(v, "name") == "mirror" {
						mirror = configs[fmt.Sprint(at(v, "configMap", "name"))]
					}
				}
				if at(c, "image") != "registry.example.com/kferry:1" || of.text("data", "NATS_URL") != "nats://mine:4222" || mirror.text("data", "mirror.yaml") != "mine" {
					t.Errorf("%s has the image %v, the variables %v and the mirror %v", o, at(c, "image"), of["data"], mirror["data"])
				}
			}
		})
	}
}

// KEDA passes over what it doesn't know in a trigger's metadata, which no schema describes; its scalers do.
func TestTriggersAreKnownToTheirScalers(t *testing.T) {
	scalers := map[string]string{"nats-jetstream": "nats_jetstream_scaler.go", "metrics-api": "metrics_api_scaler.go"}
	met := map[string]bool{}
	each(t, func(t *testing.T, _ string, objects []object) {
		for _, o := range objects {
			for _, trigger := range list(at(o, "spec", "triggers")) {
				kind := at(trigger, "type").(string)
				text, err := os.ReadFile(filepath.Join(folder(t, keda), "pkg/scalers", scalers[kind]))
				if err != nil {
					t.Fatal(err)
				}
				met[kind] = true
				names(t, o, at(trigger, "metadata"))
				known := map[string]bool{}
				for _, match := range regexp.MustCompile(`keda:"name=(\w+)([^"]*)"`).FindAllStringSubmatch(string(text), -1) {
					known[match[1]] = true
					given := at(trigger, "metadata", match[1]) != nil
					if !given && strings.Contains(match[2], "order=triggerMetadata") && !strings.Contains(match[2], "optional") && !strings.Contains(match[2], "default=") {
						t.Errorf("%s: %s needs %s", o, kind, match[1])
					}
				}
				for name := range at(trigger, "metadata").(map[string]any) {
					if !known[name] {
						t.Errorf("%s: %s knows no %s", o, kind, name)
					}
				}
			}
		}
	})
	if len(met) != len(scalers) {
		t.Errorf("the overlays have triggers of %v alone", met)
	}
}

// names sees that a trigger asks for what kferry has.
func names(t *testing.T, o object, metadata any) {
	t.Helper()
	if consumer := at(metadata, "consumer"); consumer != nil && !holds(t, "../../README.md", fmt.Sprintf(`"$JS.API.CONSUMER.INFO.%v.%v"`, at(metadata, "stream"), consumer)) {
		t.Errorf("%s: kferry has no consumer %v of the stream %v", o, consumer, at(metadata, "stream"))
	}
	if value := at(metadata, "valueLocation"); value != nil && !holds(t, "../../coordinator/scale.go", fmt.Sprintf("`json:\"%v\"`", value)) {
		t.Errorf("%s: /scale answers no %v", o, value)
	}
}

// holds says whether a text stands in a file.
func holds(t *testing.T, file, text string) bool {
	t.Helper()
	all, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(all), text)
}

// What scales and what is scaled have one bound, and a call of Knative's lasts longer than the run that it asks for. What both roles go by, both
// have: it is in the variables that they share.
func TestBoundsAgree(t *testing.T) {
	each(t, func(t *testing.T, name string, objects []object) {
		shared := objects[slices.IndexFunc(objects, func(o object) bool { return o.text("data", "KFERRY_HTTP") != "" })]
		for _, o := range objects {
			pod := at(template(o), "spec")
			for _, c := range list(at(pod, "containers")) {
				for _, v := range list(at(c, "env")) {
					if own := at(v, "name").(string); slices.Contains([]string{"KFERRY_SLOTS", "KFERRY_RUN_TIME", "KFERRY_LEASE", "KFERRY_NAME"}, own) {
						t.Errorf("%s has a %s of its own, which the other role doesn't know of", o, own)
					}
				}
			}
			switch o.is() {
			case "keda.sh/v1alpha1 ScaledObject":
				if most := fmt.Sprint(at(o, "spec", "maxReplicaCount")); name == "keda" && shared.text("data", "KFERRY_SCALE_MAX") != most {
					t.Errorf("coordinators ask for %s workers, KEDA makes %s", shared.text("data", "KFERRY_SCALE_MAX"), most)
				}
			case "serving.knative.dev/v1 Service":
				run, err := time.ParseDuration(shared.text("data", "KFERRY_RUN_TIME"))
				if timeout := time.Duration(at(pod, "timeoutSeconds").(int)) * time.Second; err != nil || run+time.Minute > timeout {
					t.Errorf("runs of %s, calls of %s (%v)", run, timeout, err)
				}
				if calls := fmt.Sprint(at(pod, "containerConcurrency")); shared.text("data", "KFERRY_SLOTS") != calls {
					t.Errorf("a pod has %s slots, and %s calls", shared.text("data", "KFERRY_SLOTS"), calls)
				}
				if most := o.text("spec", "template", "metadata", "annotations", "autoscaling.knative.dev/max-scale"); shared.text("data", "KFERRY_SCALE_MAX") != most {
					t.Errorf("coordinators ask for %s workers, Knative makes %s", shared.text("data", "KFERRY_SCALE_MAX"), most)
				}
			}
		}
	})
}

// Whoever stops a worker waits for longer than it takes to end what is in flight and to give its leases back, with ten seconds for a request
// that was sent.
func TestWorkersHaveTimeToDrain(t *testing.T) {
	needs := 10 * time.Second
	for file, name := range map[string]string{"../../functions/worker.go": "drainLimit", "../../functions/trouble.go": "concludeLimit"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		is := regexp.MustCompile(`\t` + name + ` += (\d+) \* time\.Second`).FindSubmatch(text)
		if is == nil {
			t.Fatalf("%s has no %s", file, name)
		}
		seconds, _ := strconv.Atoi(string(is[1]))
		needs += time.Duration(seconds) * time.Second
	}
	has := map[string]time.Duration{}
	each(t, func(t *testing.T, name string, objects []object) {
		for _, o := range objects {
			pod := at(template(o), "spec")
			for _, field := range []string{"terminationGracePeriodSeconds", "timeoutSeconds"} { // Knative makes the one of the other
				if seconds, is := at(pod, field).(int); is {
					has[name+": "+o.String()] = time.Duration(seconds) * time.Second
				}
			}
			if pod != nil && has[name+": "+o.String()] == 0 {
				t.Errorf("%s doesn't say how long it may take to end", o)
			}
		}
	})
	worker := composed(t).Services["worker"]
	has["compose.yaml"] = time.Duration(*worker.StopGracePeriod)
	text, err := os.ReadFile(ecsTemplate)
	if err != nil {
		t.Fatal(err)
	}
	for i, match := range regexp.MustCompile(`StopTimeout: (\d+)`).FindAllSubmatch(text, -1) {
		seconds, _ := strconv.Atoi(string(match[1]))
		has[fmt.Sprintf("task %d of ECS", i)] = time.Duration(seconds) * time.Second
	}
	if len(has) < 14 {
		t.Errorf("only %d are known to wait", len(has))
	}
	for who, waits := range has {
		if waits <= needs {
			t.Errorf("%s waits %s, and a worker takes up to %s", who, waits, needs)
		}
	}
}
