//go:build unix

package local_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/kferry/kferry/shared/local"
)

// What leads to the queue of kferry run is its owner's alone, whatever lies in the directory before, and is believed only where it is.
func TestTheWayToASharedQueueIsItsOwnersAlone(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "precious")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(outside, []byte("precious"), 0o644))
	for name, before := range map[string]func(dir string){
		"no directory": func(dir string) { must(os.Remove(dir)) },
		"nothing":      func(string) {},
		"a file for all": func(dir string) {
			must(os.WriteFile(filepath.Join(dir, "url"), []byte("nats://old@127.0.0.1:1"), 0o666))
		},
		"a link to another":    func(dir string) { must(os.Symlink(outside, filepath.Join(dir, "url"))) },
		"a link that is loose": func(dir string) { must(os.Symlink(outside+"-not", filepath.Join(dir, "url"))) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			must(os.Mkdir(dir, 0o700))
			before(dir)
			queue, err := local.StartNATS(dir, local.NATSShared())
			must(err)
			info, err := os.Lstat(filepath.Join(dir, "url"))
			must(err)
			if info.Mode() != 0o600 {
				t.Errorf("the file's mode is %s", info.Mode())
			}
			if info, err = os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("the directory's mode is %s, %v", info.Mode(), err)
			}
			at, err := local.FindNATS(dir)
			if err != nil || at != queue.Address() || len(at.Login.Token.Text) < 20 || !strings.HasPrefix(at.URL, "nats://127.0.0.1:") {
				t.Errorf("found %s, %v", at.URL, err)
			}
			if _, err := nats.Connect(at.URL); err == nil {
				t.Error("lets in whoever has no token")
			}
			conn, err := nats.Connect(queue.URL())
			must(err)
			conn.Close()
			queue.Close()
			left, err := filepath.Glob(filepath.Join(dir, "url*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
		t.Errorf("a link was followed: %q, %v", text, err)
	}
	if _, err := os.Stat(outside + "-not"); err == nil {
		t.Error("a loose link was followed")
	}
}

// Somebody else would send commands, and what they know, anywhere.
func TestTheWayThatAnybodyMayHaveWrittenIsNotBelieved(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"for all to write": func(path string) error {
			if err := os.WriteFile(path, []byte("nats://token@127.0.0.1:1"), 0o600); err != nil {
				return err
			}
			return os.Chmod(path, 0o666)
		},
		"a link": func(path string) error {
			if err := os.WriteFile(path+"-", []byte("nats://token@127.0.0.1:1"), 0o600); err != nil {
				return err
			}
			return os.Symlink(path+"-", path)
		},
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"no URL":      func(path string) error { return os.WriteFile(path, []byte("geheim://geheim"), 0o600) },
	} {
		dir := t.TempDir()
		if err := plant(filepath.Join(dir, "url")); err != nil {
			t.Fatal(err)
		}
		if at, err := local.FindNATS(dir); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: found %+v, %v", name, at, err)
		}
	}
	lock := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(lock, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/tmp/kferry-nobody-makes-this", filepath.Join(lock, "lock")); err != nil {
		t.Fatal(err)
	}
	if queue, err := local.StartNATS(lock); err == nil {
		queue.Close()
		t.Error("a lock that is a link is followed")
	}
}
