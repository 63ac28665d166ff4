package spec

import (
	"errors"
	"fmt"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The parsers of single values. Their errors say what is wrong and, after a semicolon, what to do; the value and its place
// are put in front by the report.

var aliasPattern = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,100}$`)

// parseAlias applies Strimzi's rule: an alias becomes part of topic names.
func parseAlias(text string) (string, error) {
	switch {
	case text == "":
		return "", errors.New("an alias can't be empty; name the cluster")
	case !aliasPattern.MatchString(text):
		return "", errors.New("not an alias; take 1 to 100 letters, digits, '.', '_' or '-'")
	}
	return text, nil
}

// parseServers reads host:port,host:port.
func parseServers(text string) ([]string, error) {
	if strings.ContainsAny(text, "<>") {
		return nil, errors.New("a placeholder was left in place; write the cluster's own addresses, like localhost:9092")
	}
	var servers []string
	for part := range strings.SplitSeq(text, ",") {
		server, err := parseServer(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		if !slices.Contains(servers, server) {
			servers = append(servers, server)
		}
	}
	return servers, nil
}

func parseServer(text string) (string, error) {
	if protocol, address, found := strings.Cut(text, "://"); found {
		if !strings.EqualFold(protocol, "PLAINTEXT") {
			return "", fmt.Errorf("a protocol in front of an address decides nothing in Kafka; write the address alone, and security.protocol beside it for %s", protocol)
		}
		text = address
	}
	if text == "" {
		return "", errors.New("an address is empty; write host:port, like localhost:9092")
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", fmt.Errorf("%q has no port; write host:port, like localhost:9092", text)
	}
	if host == "" {
		return "", fmt.Errorf("%q has no host; write host:port, like localhost:9092", text)
	}
	if strings.ContainsAny(host, " \t/@") {
		return "", fmt.Errorf("%q is not a host name; write host:port, like localhost:9092", host)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%q is not a port; write a number from 1 to 65535", port)
	}
	return text, nil
}

func parseReplicationFactor(text string) (int16, error) {
	n, err := strconv.ParseInt(text, 10, 16)
	if err != nil || n == 0 || n < -1 {
		return 0, errors.New("not a replication factor; give the number of copies, or -1 for the broker's default")
	}
	return int16(n), nil
}

func parseIsolation(text string) (Isolation, error) {
	switch level := Isolation(strings.ToLower(text)); level {
	case ReadCommitted, ReadUncommitted:
		return level, nil
	}
	return "", fmt.Errorf("not an isolation level; give %s or %s", ReadCommitted, ReadUncommitted)
}

// parseSeconds reads a whole number of seconds, as MirrorMaker 2 has them.
func parseSeconds(text string) (time.Duration, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64/int64(time.Second) {
		return 0, errors.New("not an interval; give a whole number of seconds, 1 or more")
	}
	return time.Duration(n) * time.Second, nil
}

// parseDuration reads a duration of at least a least one.
func parseDuration(least time.Duration) func(string) (time.Duration, error) {
	return func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, fmt.Errorf("not a duration; give a number and a unit, like %s", max(least, 5*time.Second))
		}
		if d < least {
			return 0, fmt.Errorf("too short; give at least %s", least)
		}
		return d, nil
	}
}

// parseCount reads a whole number between two.
func parseCount(least, most int) func(string) (int, error) {
	return func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("not a count; give a whole number from %d to %d", least, most)
		}
		return n, nil
	}
}

// parseBool takes what the Kubernetes tools do, which are of an older YAML.
func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "on":
		return true, nil
	case "false", "no", "off":
		return false, nil
	}
	return false, errors.New("neither true nor false; give one of them")
}

// parseJavaBool takes what Kafka does. To MirrorMaker's driver a flow whose enabled is anything else is off, which a "yes" doesn't mean.
func parseJavaBool(text string) (bool, error) {
	if !strings.EqualFold(text, "true") && !strings.EqualFold(text, "false") {
		return false, errors.New("neither true nor false; give one of them")
	}
	return parseBool(text)
}

// parseState reads the state of a connector that is there.
func parseState(text string) (State, error) {
	switch state := State(text); state {
	case Running, Paused, Stopped:
		return state, nil
	}
	return "", errors.New("unknown state; give running, paused or stopped")
}

// parseConnector reads the name under which a Connect keeps offsets.
func parseConnector(text string) (string, error) {
	if text == "" {
		return "", errors.New("a connector's name can't be empty; give the one that cursors are kept under, or remove it")
	}
	return text, nil
}

func parseGroup(text string) (string, error) {
	if text == "" {
		return "", errors.New("a group's name can't be empty; give one or remove it")
	}
	return text, nil
}

func parseOneOf(words ...string) func(string) (string, error) {
	return func(text string) (string, error) {
		if word := strings.ToLower(text); slices.Contains(words, word) {
			return word, nil
		}
		return "", fmt.Errorf("unknown; give %s or %s", strings.Join(words[:len(words)-1], ", "), words[len(words)-1])
	}
}

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

func parseName(text string) (string, error) {
	if !namePattern.MatchString(text) {
		return "", errors.New("not a name; take 1 to 64 letters, digits, '_' or '-'")
	}
	return text, nil
}

// parseListen reads an address to listen on; off is "".
func parseListen(text string) (string, error) {
	if text == "off" {
		return "", nil
	}
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", errors.New("not an address; give host:port, like 127.0.0.1:8080, or off")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q is not a port; give host:port, like 127.0.0.1:8080, or off", port)
	}
	return text, nil
}

func parseMemory(text string) (Bytes, error) {
	amount, err := ParseBytes(text)
	if err == nil && amount < leastMemory {
		err = fmt.Errorf("too little; give at least %s", leastMemory)
	}
	return amount, err
}

// parseScaleRate reads the bytes a second that a worker is taken to copy.
func parseScaleRate(text string) (Bytes, error) {
	rate, err := ParseBytes(text)
	if err == nil && rate < leastScaling {
		err = fmt.Errorf("too little for a worker; give at least %s", leastScaling)
	}
	return rate, err
}
