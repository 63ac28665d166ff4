package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/coordinator"
)

// CloudWatch is told once a minute, and nothing while nobody knows.
func TestCloudWatchIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		began, asked := time.Now(), 0
		ended := make(chan error)
		go func() {
			ended <- tellCloudWatch(ctx, &out, "blue", func() (coordinator.Scale, error) {
				if asked++; asked == 2 {
					return coordinator.Scale{}, errors.New("the queue is away")
				}
				return coordinator.Scale{Desired: asked, DecidedAt: time.Now()}, nil
			})
		}()
		time.Sleep(5*time.Minute + time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		var minutes []int
		for line := range bytes.Lines(out.Bytes()) {
			var event struct {
				AWS            struct{ Timestamp int64 } `json:"_aws"`
				Installation   string
				DesiredWorkers int
			}
			if err := json.Unmarshal(line, &event); err != nil {
				t.Fatal(err)
			}
			minute := int(time.UnixMilli(event.AWS.Timestamp).Sub(began).Minutes())
			if minutes = append(minutes, minute); event.Installation != "blue" || event.DesiredWorkers != minute {
				t.Errorf("%s", line)
			}
		}
		if len(minutes) != 4 {
			t.Errorf("told in minutes %v", minutes)
		}
	})
}
