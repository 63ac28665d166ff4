package spec_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kferry/kferry/shared/spec"
)

func text(secret string) spec.Kept { return spec.Kept{Text: spec.Secret(secret)} }

// The names are the nats CLI's, and each leads to the login that it has there.
func TestNATSLogins(t *testing.T) {
	for name, c := range map[string]struct {
		environ []string
		want    spec.NATSLogin
	}{
		"none":               {nil, spec.NATSLogin{}},
		"user in URL":        {[]string{"NATS_URL=nats://u:p%40ss@n1:4222, n2"}, spec.NATSLogin{User: "u", Password: text("p@ss")}},
		"user in both URLs":  {[]string{"NATS_URL=u:p@n1,u:p@n2"}, spec.NATSLogin{User: "u", Password: text("p")}},
		"token in URL":       {[]string{"NATS_URL=tls://geheim@n1"}, spec.NATSLogin{Token: text("geheim")}},
		"user":               {[]string{"NATS_USER=u", "NATS_PASSWORD=p"}, spec.NATSLogin{User: "u", Password: text("p")}},
		"password in file":   {[]string{"NATS_USER=u", "NATS_PASSWORD_FILE=/p"}, spec.NATSLogin{User: "u", Password: spec.Kept{File: "/p"}}},
		"user is a token":    {[]string{"NATS_USER=geheim"}, spec.NATSLogin{Token: text("geheim")}},
		"token":              {[]string{"NATS_TOKEN=geheim"}, spec.NATSLogin{Token: text("geheim")}},
		"token in file":      {[]string{"NATS_TOKEN_FILE=~/t", "HOME=/home/k"}, spec.NATSLogin{Token: spec.Kept{File: "/home/k/t"}}},
		"credentials":        {[]string{"NATS_CREDS=/c"}, spec.NATSLogin{Creds: "/c"}},
		"NKey":               {[]string{"NATS_NKEY=/k"}, spec.NATSLogin{NKey: "/k"}},
		"JWT":                {[]string{"NATS_JWT=j", "NATS_SEED=s"}, spec.NATSLogin{JWT: text("j"), Seed: text("s")}},
		"JWT and seed files": {[]string{"NATS_JWT_FILE=/j", "NATS_SEED_FILE=/s"}, spec.NATSLogin{JWT: spec.Kept{File: "/j"}, Seed: spec.Kept{File: "/s"}}},
	} {
		t.Run(name, func(t *testing.T) {
			environ := plain(c.environ...)
			if len(c.environ) == 0 || !strings.HasPrefix(c.environ[0], "NATS_URL") {
				environ = append(environ, "NATS_URL=n1")
			}
			s := load(t, environ...)
			if got := s.Settings.NATS; got.Login != c.want || strings.Contains(got.URL, "@") || !strings.Contains(got.URL, "://n1") || len(s.Warnings) > 0 {
				t.Errorf("%+v, warnings %q", got, s.Warnings)
			}
		})
	}
}

func TestNATSMistakes(t *testing.T) {
	const secret = "geheim-geheim-geheim"
	for name, c := range map[string]struct {
		environ []string
		want    []string
	}{
		"two logins":       {[]string{"NATS_USER=u", "NATS_PASSWORD=" + secret, "NATS_CREDS=/c", "NATS_TOKEN=" + secret}, []string{"NATS_USER: is set, and so is NATS_TOKEN, and NATS_CREDS; a connection has one login"}},
		"one in the URL":   {[]string{"NATS_URL=nats://u:" + secret + "@n1", "NATS_NKEY=/k"}, []string{"NATS_URL: has a login, and so has NATS_NKEY"}},
		"text and file":    {[]string{"NATS_TOKEN=" + secret, "NATS_TOKEN_FILE=/t"}, []string{"NATS_TOKEN: is set, and so is NATS_TOKEN_FILE"}},
		"two in the URL":   {[]string{"NATS_URL=u:" + secret + "@n1,v:" + secret + "@n2"}, []string{"NATS_URL: its servers have different logins"}},
		"half a login":     {[]string{"NATS_PASSWORD=" + secret}, []string{"NATS_PASSWORD: is set without NATS_USER"}},
		"a blank JWT":      {[]string{"NATS_JWT= "}, []string{"NATS_JWT: is set but empty"}},
		"blanks and a URL": {[]string{"NATS_URL=nats://u:p@n", "NATS_USER= ", "NATS_TOKEN= ", "NATS_CREDS= "}, []string{"NATS_USER: is set but empty", "NATS_TOKEN: is set but empty"}},
		"half a JWT":       {[]string{"NATS_JWT=" + secret}, []string{"NATS_JWT: is half of a login; set NATS_JWT and NATS_SEED"}},
		"half a pair":      {[]string{"NATS_CERT=/c"}, []string{"NATS_CERT: is set without NATS_KEY"}},
		"other half":       {[]string{"NATS_KEY=/c"}, []string{"NATS_KEY: is set without NATS_CERT"}},
		"domain or prefix": {[]string{"NATS_DOMAIN=hub", "NATS_API_PREFIX=js.hub"}, []string{"NATS_DOMAIN: is set, and so is NATS_API_PREFIX"}},
		"all at once": {
			[]string{"NATS_URL=http://u:" + secret + "@n", "NATS_TLS_FIRST=maybe", "NATS_DOMAIN=a.b", "NATS_INBOX_PREFIX=_INBOX.>", "NATS_TIMEOUT=5", "NATS_REPLICAS=2", "NATS_CA="},
			[]string{"NATS_URL: not a list of NATS servers", "NATS_TLS_FIRST:", "NATS_DOMAIN:", "NATS_INBOX_PREFIX:", "NATS_TIMEOUT:", "NATS_REPLICAS: \"2\": not a number of replicas", "NATS_CA: is set but empty"},
		},
		"context that isn't there": {[]string{"NATS_CONTEXT=nowhere", "HOME=/none"}, []string{"NATS_CONTEXT: \"nowhere\": the context can't be read"}},
		"context elsewhere":        {[]string{"NATS_CONTEXT=../../x"}, []string{"NATS_CONTEXT: \"../../x\": not the name of a context"}},
		"short HTTP token":         {[]string{"KFERRY_HTTP_TOKEN=geheim"}, []string{"KFERRY_HTTP_TOKEN: too short"}},
		"HTTP token of two lines":  {[]string{"KFERRY_HTTP_TOKEN=" + secret + "\n" + secret}, []string{"KFERRY_HTTP_TOKEN: holds what can't be in a header"}},
		"half of HTTPS":            {[]string{"KFERRY_HTTP_TLS_KEY=/k", "KFERRY_HTTP_TLS_CLIENT_CA=/ca"}, []string{"KFERRY_HTTP_TLS_KEY: is set without", "KFERRY_HTTP_TLS_CLIENT_CA: is set without"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := spec.Load(nil, plain(c.environ...))
			if err == nil {
				t.Fatal("taken")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "geheim") {
				t.Errorf("shows a secret: %v", err)
			}
		})
	}
}

func TestNATSLoginWithoutServer(t *testing.T) {
	s := load(t, plain("NATS_CREDS=/c", "NATS_INBOX_PREFIX=_INBOX_k")...)
	if s.Settings.NATS != (spec.NATS{InboxPrefix: "_INBOX_k", Timeout: s.Settings.NATS.Timeout}) || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "NATS_CREDS: has no effect without NATS_URL") {
		t.Errorf("%+v, warnings %q", s.Settings.NATS, s.Warnings)
	}
}

// A context of the nats CLI stands behind what variables say.
func TestNATSContext(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, ".config", "nats", "context")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"all": `{"description":"x","url":"tls://n1,tls://n2","creds":"~/k.creds","ca":"/ca","tls_first":true,"jetstream_domain":"hub",
			"inbox_prefix":"_INBOX_k","color_scheme":"","nsc":"","socks_proxy":""}`,
		"proxy": `{"url":"n1","socks_proxy":"p:1","password":"geheim"}`,
		"no":    `{"password":"geheim`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := spec.NATS{
		URL: "tls://n1,tls://n2", Login: spec.NATSLogin{Creds: filepath.Join(home, "k.creds")}, CA: "/ca", TLSFirst: true,
		Domain: "hub", InboxPrefix: "_INBOX_k", Timeout: 5e9,
	}
	if got := load(t, plain("NATS_CONTEXT=all", "HOME="+home)...).Settings.NATS; got != want {
		t.Errorf("%+v", got)
	}
	want.URL, want.Login, want.CA, want.TLSFirst = "nats://n3", spec.NATSLogin{Token: text("geheim")}, "/ca2", false
	got := load(t, plain("NATS_CONTEXT=all", "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "NATS_URL=n3", "NATS_TOKEN=geheim", "NATS_CA=/ca2", "NATS_TLS_FIRST=false")...).Settings.NATS
	if got != want {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{"proxy", "no"} {
		_, err := spec.Load(nil, plain("NATS_CONTEXT="+name, "HOME="+home))
		if err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeptSecrets(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	for _, text := range []string{"geheim\n", "geheim\r\n", "geheim"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := (spec.Kept{File: file}).Read(); got != "geheim" || err != nil {
			t.Errorf("%q is read as %q, %v", text, got, err)
		}
	}
	for name, text := range map[string]string{"empty": "\n", "huge": strings.Repeat("geheim", 20_000)} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := (spec.Kept{File: file}).Read(); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (spec.Kept{File: filepath.Join(dir, "none")}).Read(); err == nil {
		t.Error("no file is read")
	}
}
