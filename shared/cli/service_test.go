package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/spec"
)

// Who calls while a process ends is answered: what was begun gets its answer, and probes hear that it is alive and not ready. Then nobody listens.
func TestTheDoorStaysOpenUntilThePartsHaveEnded(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	v := &service{station: &station{log: log}, door: newDoor(spec.HTTP{Address: "127.0.0.1:0"}, log)}
	watchable(v.door, newRegistry(), v.ready.Load)
	begun, mayEnd := make(chan struct{}), make(chan struct{})
	v.door.changes("POST /{$}", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-mayEnd
		fmt.Fprint(w, "done")
	}))
	if err := v.door.listen(); err != nil {
		t.Fatal(err)
	}
	at := "http://" + v.door.listener.Addr().String()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	t.Cleanup(client.CloseIdleConnections)
	answer := func(method, path string) string {
		r, err := http.NewRequest(method, at+path, nil)
		if err != nil {
			return err.Error()
		}
		a, err := client.Do(r)
		if err != nil {
			return err.Error()
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		return fmt.Sprint(a.StatusCode, " ", string(text), err)
	}
	told, stop := context.WithCancel(t.Context())
	stopping, served, called := make(chan struct{}), make(chan error, 1), make(chan string, 1)
	go func() {
		served <- v.serve(told, func(ctx context.Context) error {
			<-ctx.Done()
			close(stopping)
			<-mayEnd
			return nil
		})
	}()
	go func() { called <- answer(http.MethodPost, "/") }()
	<-begun
	stop()
	<-stopping
	for v.ready.Load() {
		time.Sleep(time.Millisecond)
	}
	if alive, ready := answer(http.MethodGet, "/healthz"), answer(http.MethodGet, "/readyz"); alive != "200 ok\n<nil>" || ready != "503 not ready\n<nil>" {
		t.Errorf("while it ends: %s and %s", alive, ready)
	}
	close(mayEnd)
	if text := <-called; text != "200 done<nil>" {
		t.Errorf("the call that was under way: %s", text)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if text := answer(http.MethodGet, "/healthz"); text == "200 ok\n<nil>" {
		t.Error("somebody listens")
	}
}

// A process whose parts have come to an end by themselves ends, once all have: in order, or with what went wrong with one.
func TestAServiceEndsWithItsParts(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for name, fails := range map[string]error{"in order": nil, "with an error": errors.New("no")} {
		t.Run(name, func(t *testing.T) {
			v := &service{station: &station{log: log}, door: newDoor(spec.HTTP{Address: "127.0.0.1:0"}, log)}
			if err := v.door.listen(); err != nil {
				t.Fatal(err)
			}
			ctx, giveUp := context.WithTimeout(t.Context(), time.Minute)
			defer giveUp()
			ended := make(chan struct{})
			err := v.serve(ctx, func(context.Context) error {
				defer close(ended)
				return fails
			}, func(ctx context.Context) error {
				<-ended
				if fails != nil { // and the others are told
					<-ctx.Done()
				}
				return nil
			})
			if err != fails || ctx.Err() != nil || v.ready.Load() {
				t.Errorf("%v, %v, ready %t", err, ctx.Err(), v.ready.Load())
			}
		})
	}
}
