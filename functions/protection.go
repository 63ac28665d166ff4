package functions

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// Bounds of asking for protection.
const (
	protectFor    = 10 * time.Minute // a task that hangs is in nobody's way for longer
	protectIdle   = 30 * time.Second // without a lease, and the protection is given up
	protectLook   = time.Second
	protectPause  = 10 * time.Second // between two calls, whatever came of the first
	protectCall   = 5 * time.Second
	protectAnswer = 64 << 10
	protectSay    = time.Minute // until the log tells again that it does not work
)

// protection keeps the process' task on Amazon ECS from being chosen when the service has too many, or is deployed anew, as long as leases
// are held. It is a favour and nothing rests on it: a task that is ended all the same drains. So no failure is more than a line in the log.
type protection struct {
	url    string
	client *http.Client
	log    *slog.Logger

	until  time.Time // when it ends by itself; zero is not protected
	called time.Time
	said   time.Time
}

func newProtection(agent string, through http.RoundTripper, log *slog.Logger) *protection {
	if through == nil {
		through = &http.Transport{DisableKeepAlives: true} // and no proxy: the agent is on the same machine
	}
	return &protection{url: agent + "/task-protection/v1/state", client: &http.Client{Transport: through, Timeout: protectCall}, log: log}
}

// run asks until ctx ends. The protection of a task that ends does, too.
func (p *protection) run(ctx context.Context, held func() int) {
	var busy time.Time
	for ctx.Err() == nil {
		now := time.Now()
		if held() > 0 {
			busy = now
		}
		wanted := !busy.IsZero() && now.Sub(busy) < protectIdle
		if due := wanted && p.until.Sub(now) < protectFor/2 || !wanted && p.until.After(now); due && now.Sub(p.called) >= protectPause {
			p.ask(ctx, wanted)
		}
		sleep(ctx, protectLook)
	}
}

func (p *protection) ask(ctx context.Context, wanted bool) {
	p.called = time.Now()
	err := p.put(ctx, wanted)
	switch {
	case err == nil && wanted:
		p.until = p.called.Add(protectFor)
	case err == nil:
		p.until = time.Time{}
	case ctx.Err() == nil && p.called.Sub(p.said) >= protectSay:
		p.said = p.called
		p.log.Warn("ECS does not change the protection of this task; it goes on without", "error", err)
	}
}

func (p *protection) put(ctx context.Context, wanted bool) error {
	body := fmt.Sprintf(`{"ProtectionEnabled":%t}`, wanted)
	if wanted {
		body = fmt.Sprintf(`{"ProtectionEnabled":true,"ExpiresInMinutes":%d}`, protectFor/time.Minute)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, p.url, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, protectAnswer))
	if err != nil {
		return err
	}
	var answer struct {
		Failure struct{ Reason, Detail string } `json:"failure"` // also of 200
		Error   struct{ Code, Message string }  `json:"error"`
	}
	bad := json.Unmarshal(text, &answer)
	why := cmp.Or(answer.Failure.Reason, answer.Error.Code)
	switch {
	case why != "":
		return fmt.Errorf("%s: %s", why, cmp.Or(answer.Failure.Detail, answer.Error.Message))
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("answers %s: %.200q", response.Status, text)
	case bad != nil:
		return errors.New("answers what is no JSON")
	}
	return nil
}
