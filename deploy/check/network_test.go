package check

import "testing"

// A connection is one between a pod of kferry's and somebody in a namespace.
type connection struct {
	component, direction, namespace string
	port                            int
	protocol                        string
}

// Policies let through what kferry needs, and nothing else.
func TestNetworkPolicies(t *testing.T) {
	each(t, func(t *testing.T, name string, objects []object) {
		for _, component := range []string{"coordinator", "worker"} {
			coordinator, called := component == "coordinator", name == "knative" && component == "worker"
			for of, want := range map[connection]bool{
				{component, "egress", "kube-system", 53, "UDP"}:   true,
				{component, "egress", "kube-system", 53, "TCP"}:   true,
				{component, "egress", "nats", 4222, "TCP"}:        true,
				{component, "egress", "nats", 8222, "TCP"}:        false,
				{component, "egress", "elsewhere", 4222, "TCP"}:   false,
				{component, "egress", "elsewhere", 9091, "TCP"}:   false,
				{component, "egress", "elsewhere", 9092, "TCP"}:   true,
				{component, "egress", "elsewhere", 9098, "TCP"}:   true,
				{component, "egress", "elsewhere", 9198, "TCP"}:   true,
				{component, "egress", "elsewhere", 443, "TCP"}:    false,
				{component, "ingress", "monitoring", 8080, "TCP"}: true,
				{component, "ingress", "elsewhere", 8080, "TCP"}:  false,
				{component, "ingress", "keda", 8080, "TCP"}:       name == "keda" && coordinator,

				{component, "egress", "kourier-system", 8081, "TCP"}:   name == "knative" && coordinator,
				{component, "egress", "elsewhere", 8081, "TCP"}:        false,
				{component, "ingress", "kourier-system", 8012, "TCP"}:  called,
				{component, "ingress", "knative-serving", 8012, "TCP"}: called,
				{component, "ingress", "knative-serving", 9090, "TCP"}: called,
				{component, "ingress", "kourier-system", 8080, "TCP"}:  false,
				{component, "ingress", "elsewhere", 8012, "TCP"}:       false,
			} {
				if got := allows(t, objects, of); got != want {
					t.Errorf("%+v is let through: %t", of, got)
				}
			}
		}
	})
}

// allows says whether policies let a connection through, as they add up. Those of kferry select peers by namespace alone.
func allows(t *testing.T, objects []object, of connection) bool {
	t.Helper()
	pod := map[string]any{"app.kubernetes.io/name": "kferry", "app.kubernetes.io/component": of.component}
	end := map[string]string{"ingress": "from", "egress": "to"}[of.direction]
	for _, o := range objects {
		if o.text("kind") != "NetworkPolicy" || !within(at(o, "spec", "podSelector", "matchLabels").(map[string]any), pod) {
			continue
		}
		for _, rule := range list(at(o, "spec", of.direction)) {
			peers, is := at(rule, end).([]any)
			meets := !is // nobody named is everybody
			for _, peer := range peers {
				meets = meets || selects(t, o, peer, of.namespace)
			}
			if meets && listens(t, o, list(at(rule, "ports")), of) {
				return true
			}
		}
	}
	return false
}

func selects(t *testing.T, o object, peer any, namespace string) bool {
	t.Helper()
	const name = "kubernetes.io/metadata.name"
	selector := at(peer, "namespaceSelector")
	if selector == nil || at(peer, "podSelector") != nil {
		t.Fatalf("%s selects %v, which this test doesn't understand", o, peer)
	}
	if labels, is := at(selector, "matchLabels").(map[string]any); is {
		return labels[name] == namespace
	}
	for _, e := range list(at(selector, "matchExpressions")) {
		if at(e, "key") != name || at(e, "operator") != "In" {
			t.Fatalf("%s selects %v, which this test doesn't understand", o, e)
		}
		for _, value := range list(at(e, "values")) {
			if value == namespace {
				return true
			}
		}
	}
	return false
}

func listens(t *testing.T, o object, ports []any, of connection) bool {
	t.Helper()
	if len(ports) == 0 {
		t.Errorf("%s lets every port through", o)
	}
	for _, p := range ports {
		first, is := at(p, "port").(int)
		if !is {
			t.Errorf("%s names the port %v, and Knative calls it otherwise", o, at(p, "port"))
		}
		last, protocol := first, "TCP"
		if end, is := at(p, "endPort").(int); is {
			last = end
		}
		if given, is := at(p, "protocol").(string); is {
			protocol = given
		}
		if protocol == of.protocol && first <= of.port && of.port <= last {
			return true
		}
	}
	return false
}

// Whoever scrapes finds the port, in pods of Knative too, and a node can be drained however many pods there are and however they are.
func TestPodsAreFoundAndMoved(t *testing.T) {
	each(t, func(t *testing.T, name string, objects []object) {
		for _, o := range objects {
			switch {
			case o.text("kind") == "PodDisruptionBudget":
				if at(o, "spec", "maxUnavailable") == nil || at(o, "spec", "unhealthyPodEvictionPolicy") != "AlwaysAllow" {
					t.Errorf("%s may keep a node from being drained for good: %v", o, at(o, "spec"))
				}
			case o.text("kind") == "PodMonitor":
				if endpoint := list(at(o, "spec", "podMetricsEndpoints"))[0]; at(endpoint, "portNumber") != 8080 {
					t.Errorf("%s scrapes %v", o, endpoint)
				}
			case o.text("kind") == "ConfigMap" && o.text("data", "KFERRY_HTTP") != "" && o.text("data", "KFERRY_HTTP") != ":8080":
				t.Errorf("kferry listens at %s", o.text("data", "KFERRY_HTTP"))
			}
			for _, c := range list(at(template(o), "spec", "containers")) {
				if ports := list(at(c, "ports")); len(ports) != 1 || at(ports[0], "containerPort") != 8080 {
					t.Errorf("%s has the ports %v", o, ports)
				}
			}
		}
	})
}
