package kafka

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Throttled is how long brokers have told this client to wait so far, over all connections: it is above what a quota of the
// cluster's owner allows.
func (c *Cluster) Throttled() time.Duration { return time.Duration(c.throttled.Load()) }

// throttleHook adds up what brokers say. franz-go does the waiting.
type throttleHook struct{ c *Cluster }

// OnBrokerThrottle is part of kgo.HookBrokerThrottle.
func (h throttleHook) OnBrokerThrottle(_ kgo.BrokerMetadata, wait time.Duration, _ bool) {
	h.c.throttled.Add(int64(wait))
}

const (
	// quotaTime is how long a quota is taken to hold after the broker has said that it is used up.
	quotaTime = 10 * time.Second
	// quotaShare is how small requests are then: so many for what the broker lets through in a second.
	quotaShare = 4
)

// A quota is what can be told of one that the broker holds this client to.
type quota struct {
	until time.Time // it is taken to hold
	bytes int64     // that a request is to bring then

	since   time.Time
	brought int64
}

// heed notes an answer, and whether it said to wait.
func (q *quota) heed(bytes int64, throttled bool) {
	now := time.Now()
	q.brought += bytes
	if !throttled {
		return
	}
	if now.After(q.until) { // what was brought before it was used up says nothing
		q.since, q.brought, q.bytes = now, 0, mostFetch
	}
	q.until = now.Add(quotaTime)
	if in := now.Sub(q.since); in >= time.Second {
		q.bytes = max(leastFetch, int64(float64(q.brought)/in.Seconds()/quotaShare))
		q.since, q.brought = now, 0
	}
}

// most bounds a request. A broker sends nothing of an answer for which too little of the quota is left, so large ones leave much of it
// unused. Small ones would cost throughput on a long line.
func (q *quota) most() int64 {
	if time.Now().After(q.until) {
		return mostFetch
	}
	return q.bytes
}
