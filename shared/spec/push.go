package spec

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"time"
)

// A Front is how a worker comes by its work, and how much of it is one run.
type Front struct {
	// Push says that the worker claims when it is called over HTTP, and not by itself.
	Push bool
	// RunTime and RunBytes bound a run, where runs are bounded.
	RunTime  time.Duration
	RunBytes Bytes
	// ECSAgent is where a task of Amazon ECS asks for things; "" elsewhere.
	ECSAgent string
}

// WakeUps are what a coordinator sends to push workers.
type WakeUps struct {
	URL   string // "": none are sent
	Token Kept
	Most  int // under way at one time
}

const (
	leastRunTime = time.Second
	mostWakeUps  = 10_000
)

func (e environment) front(r *report) Front {
	f := Front{
		Push:     read(r, e.value("KFERRY_PUSH", e.Push), parseBool, false),
		RunTime:  read(r, e.value("KFERRY_RUN_TIME", e.RunTime), parseDuration(leastRunTime), 0),
		RunBytes: read(r, e.value("KFERRY_RUN_BYTES", e.RunBytes), parseMemory, 0),
	}
	agent := e.value("ECS_AGENT_URI", e.ECSAgent)
	switch _, err := parseURL(agent.text); {
	case !agent.set:
	case err != nil:
		r.warn(agent, "not a URL as ECS sets it; its tasks go without protection") // which isn't worth a worker that doesn't start
	default:
		f.ECSAgent = strings.TrimSuffix(agent.text, "/")
	}
	if f.Push && e.HTTP == "off" {
		r.wrongf(value{path: "KFERRY_PUSH"}, "is set while KFERRY_HTTP is off; a worker that is to be called needs an address")
	}
	return f
}

func (e environment) wakeUps(r *report) WakeUps {
	w := WakeUps{
		Token: e.kept(r, "KFERRY_PUSH_TOKEN"),
		Most:  read(r, e.value("KFERRY_PUSH_MAX", e.PushMax), parseCount(1, mostWakeUps), 0),
	}
	if address := e.value("KFERRY_PUSH_URL", e.PushURL); address.set {
		var err error
		if w.URL, err = parseURL(address.text); err != nil {
			r.wrongf(value{path: address.path}, "%v", err) // without the text, which may hold a login
		}
	}
	if err := CheckToken(string(w.Token.Text)); w.Token.Text != "" && err != nil {
		r.wrongf(value{path: "KFERRY_PUSH_TOKEN"}, "%v", err)
	}
	if u, err := url.Parse(w.URL); err == nil && w.Token.Set() && u.Scheme == "http" && !loopback(u.Hostname()) {
		r.warn(value{path: "KFERRY_PUSH_URL"}, "the token travels in plain text; https keeps it to the two of them")
	}
	if e.PushURL == "" {
		for _, name := range e.givenOf("KFERRY_PUSH_TOKEN", "KFERRY_PUSH_TOKEN_FILE") {
			r.warn(value{path: name}, "has no effect without KFERRY_PUSH_URL")
		}
	}
	return w
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// parseURL reads where something is called over HTTP. A login in it would go into logs.
func parseURL(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("not a URL; give one like https://worker.example.com")
	case u.User != nil:
		return "", errors.New("holds a login; leave it out, a token goes into KFERRY_PUSH_TOKEN")
	}
	return text, nil
}
