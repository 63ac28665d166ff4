package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kferry/kferry/coordinator"
)

// emfEvery is how often CloudWatch is told; it keeps a value a minute.
const emfEvery = time.Minute

// scaled is a coordinator that also tells those who start workers how many are wanted.
func (v *service) scaled(c *coordinator.Coordinator) func(context.Context) error {
	v.door.tells("GET /scale", tellScale(c.Scale))
	if !v.spec.Settings.EMF {
		return c.Run
	}
	return func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return c.Run(ctx) })
		g.Go(func() error { return tellCloudWatch(ctx, v.out, v.spec.Name, c.Scale) })
		return g.Wait()
	}
}

func tellScale(scale func() (coordinator.Scale, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s, err := scale()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = writeJSON(w, s) // or who asked is gone
	})
}

// tellCloudWatch writes a line a minute until ctx ends. What nobody knows is no line: an alarm sees that data is missing.
func tellCloudWatch(ctx context.Context, to io.Writer, installation string, scale func() (coordinator.Scale, error)) error {
	ticker := time.NewTicker(emfEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		s, err := scale()
		if err != nil {
			continue
		}
		if _, err := to.Write(s.EMF(installation)); err != nil {
			return fmt.Errorf("write metrics for CloudWatch to standard output: %w", err)
		}
	}
}
