package kafka

import (
	"context"
	"net"
	"sync"

	"github.com/kferry/kferry/shared/kafka/login"
	"github.com/kferry/kferry/shared/spec"
)

// telling is the dialer, which has the log say what keeps new certificates and passwords from being taken up: once when it begins, and once
// when it is over. Whoever connects has looked at them just before.
func telling(cl spec.Cluster, o Options) login.Dial {
	if cl.Login == nil || o.Logger == nil {
		return o.Dialer
	}
	var mu sync.Mutex // guards told
	var told string
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		problem := cl.Login.Problem()
		mu.Lock()
		changed := problem != told
		told = problem
		mu.Unlock()
		switch {
		case changed && problem != "":
			o.Logger.Warn("what the login is made of now is not taken up; what held before goes on to", "cluster", cl.Key(), "problem", problem)
		case changed:
			o.Logger.Info("what the login is made of is taken up again", "cluster", cl.Key())
		}
		return o.Dialer(ctx, network, address)
	}
}
