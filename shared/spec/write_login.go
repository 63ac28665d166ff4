package spec

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// This file writes how clusters are logged in to. What a reference stands for is never written, the reference is; and what stands in the
// input as it is only where that is asked for.

// A loginWriter turns the settings of a login into text.
type loginWriter struct {
	literal  bool            // secrets may be written that the input holds as they are
	apart    map[string]bool // aliases that some flows log in to in another way than others
	withheld []string        // secrets that may not be written
	leftOut  []string
}

// text is what is written of a setting: the reference where there is one.
func (w *loginWriter) text(key string, v value) string {
	switch {
	case !v.literal || w.literal:
		return cmp.Or(v.reference, v.text)
	case v.reference == "" && v.file == "" && strings.HasPrefix(v.path, "KFERRY_"):
		return "${env:" + v.path + "}"
	}
	if place := v.place(); !slices.Contains(w.withheld, place) {
		w.withheld = append(w.withheld, place)
	}
	return v.text
}

// newLoginWriter is for the logins of a Spec.
func newLoginWriter(s Spec, secrets bool) *loginWriter {
	w := &loginWriter{literal: secrets, apart: map[string]bool{}}
	for _, c := range s.Clusters {
		w.apart[c.Alias] = w.apart[c.Alias] || c.Flow != ""
	}
	return w
}

// err names the secrets that would have been written.
func (w *loginWriter) err(to Format) error {
	if len(w.withheld) == 0 {
		return nil
	}
	return fmt.Errorf("%s would have secrets that the input holds as they are: %s; have the input refer to them, like ${file:/path:key} or ${secrets:namespace/name:key}, or ask for them with --show-secrets",
		to, strings.Join(w.withheld, ", "))
}

// settingsFor are those of a cluster's login, in words that MirrorMaker has too where there are some.
func (w *loginWriter) settingsFor(c Cluster) map[string]string {
	all := map[string]string{}
	if c.Login == nil {
		return all
	}
	for key, v := range c.Login.config {
		all[key] = w.text(key, v)
	}
	config := c.Login.config
	module := map[string]string{"PLAIN": plainModule, "SCRAM-SHA-256": scramModule, "SCRAM-SHA-512": scramModule}[config["sasl.mechanism"].text]
	if module == "" || !config["sasl.username"].set || !config["sasl.password"].set {
		return all
	}
	username, password := all["sasl.username"], all["sasl.password"]
	for key, text := range map[string]*string{"sasl.username": &username, "sasl.password": &password} {
		switch v := config[key]; {
		case !reference.MatchString(*text):
			*text = quoteJAAS(*text)
		case strings.ContainsAny(v.text, "\\\"\n\r"):
			w.leaveOut("words for the login at %s that MirrorMaker knows: its %s has characters that JAAS takes from no reference", c.Alias, key)
			return all
		}
	}
	delete(all, "sasl.username")
	delete(all, "sasl.password")
	all["sasl.jaas.config"] = module + ` required username="` + username + `" password="` + password + `";`
	return all
}

func (w *loginWriter) leaveOut(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(w.leftOut, text) {
		w.leftOut = append(w.leftOut, text)
	}
}

// referenceOf is what stands in the place of a text, which was read under a key: the text itself where it stood there.
func referenceOf(references map[string]string, key, text string) string {
	if written, ok := references[key]; ok {
		return written
	}
	return text
}

// canonical are keys under which the same is written as is read under others.
func canonical(key string) string {
	switch {
	case slices.Contains(startKeys, key):
		return "consumer.auto.offset.reset"
	case slices.Contains(isolationKeys, key):
		return "consumer.isolation.level"
	case strings.HasSuffix(key, ".blacklist"):
		return strings.TrimSuffix(key, ".blacklist") + ".exclude"
	}
	return key
}

// referencesIn are those that settings were read from.
func referencesIn(all ...settings) map[string]string {
	found := map[string]string{}
	for _, some := range all {
		for key, v := range some {
			if v.reference != "" {
				found[canonical(key)] = v.reference
			}
		}
	}
	return found
}

// A secretAt is a key of a Secret, or a pattern of several.
type secretAt struct{ namespace, name, key string }

var wholeReference = regexp.MustCompile(`^` + reference.String() + `$`)

// secretsAt are the keys that a text of references stands for, each on a line of its own; false where there is something else in it.
func secretsAt(text string) (all []secretAt, ok bool) {
	for line := range strings.Lines(text) {
		parts := wholeReference.FindStringSubmatch(strings.TrimSpace(line))
		if parts == nil || parts[1] != secretsProvider && parts[1] != "secrets" {
			return nil, false
		}
		namespace, name, found := strings.Cut(parts[2], "/")
		if !found {
			namespace, name = "", parts[2]
		}
		all = append(all, secretAt{namespace, name, parts[3]})
	}
	return all, len(all) > 0
}

// blocks are the tls and authentication of a resource, with what is left for its config.
type securityBlocks struct {
	tls, authentication object
	hasTLS              bool
	config              []setting
}

// blocksFor says in Strimzi's v1 shape how a cluster is logged in to, which may be that of Connect. Secrets are in a namespace; those of
// others stay references.
func (w *loginWriter) blocksFor(c Cluster, namespace string, connect bool) (b securityBlocks) {
	if c.Login == nil && w.apart[c.Alias] {
		b.config = []setting{{protocolKey, "PLAINTEXT"}}
	}
	if c.Login == nil {
		return b
	}
	config := c.Login.config
	rest := map[string]string{}
	for key, v := range config {
		rest[key] = w.text(key, v)
	}
	within := func(key string) ([]secretAt, bool) {
		all, ok := secretsAt(rest[key])
		return all, ok && !slices.ContainsFunc(all, func(s secretAt) bool { return s.namespace != "" && s.namespace != namespace })
	}
	drop := func(keys ...string) {
		for _, key := range keys {
			delete(rest, key)
		}
	}
	protocol := strings.ToUpper(config[protocolKey].text)
	b.hasTLS = strings.HasSuffix(protocol, "SSL")
	drop(protocolKey)
	if trusted, ok := within("ssl.truststore.certificates"); ok && b.hasTLS {
		b.tls = b.tls.set("trustedCertificates", trustedNodes(trusted))
		drop("ssl.truststore.certificates", "ssl.truststore.type")
	}
	sasl, mechanism := strings.HasPrefix(protocol, "SASL_"), config["sasl.mechanism"].text
	kind := strings.ToLower(mechanism)
	password, inSecret := within("sasl.password")
	chain, ok := within("ssl.keystore.certificate.chain")
	key, ok2 := within("ssl.keystore.key")
	switch {
	case sasl && inSecret && len(password) == 1 && slices.Contains([]string{"plain", "scram-sha-256", "scram-sha-512"}, kind) && rest["sasl.username"] != "":
		b.authentication = object{}.set("type", text(kind)).set("username", text(rest["sasl.username"])).
			set("passwordSecret", object{}.set("secretName", text(password[0].name)).set("password", text(password[0].key)).node())
		drop("sasl.mechanism", "sasl.username", "sasl.password")
	case !sasl && b.hasTLS && ok && ok2 && len(chain) == 1 && len(key) == 1 && chain[0].name == key[0].name:
		b.authentication = object{}.set("type", text("tls")).set("certificateAndKey", object{}.set("secretName", text(chain[0].name)).
			set("certificate", text(chain[0].key)).set("key", text(key[0].key)).node())
		drop("ssl.keystore.certificate.chain", "ssl.keystore.key", "ssl.keystore.type")
	default:
		for key, text := range w.settingsFor(c) { // the login in words of Java's
			if strings.HasPrefix(key, "sasl.") {
				rest[key] = text
			}
		}
		if rest["sasl.jaas.config"] != "" {
			drop("sasl.username", "sasl.password")
		}
		var custom []setting
		for _, key := range slices.Sorted(maps.Keys(rest)) {
			if strings.HasPrefix(key, "sasl.") && sasl || strings.HasPrefix(key, "ssl.keystore.") {
				custom = append(custom, setting{key, rest[key]})
				delete(rest, key)
			}
		}
		if len(custom) > 0 {
			b.authentication = object{}.set("type", text("custom")).set("sasl", boolean(sasl)).set("config", configNode(custom))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(rest)) {
		b.config = append(b.config, setting{key, rest[key]})
		if connect && !slices.Contains(strimziWorkerKeys, key) {
			w.leaveOut("a place for %s of %s that Strimzi knows for its Connect: it stands in the config, where kferry reads it", key, c.Alias)
		}
	}
	return b
}

// strimziWorkerKeys are those of security that Strimzi lets pass to Connect's workers.
var strimziWorkerKeys = []string{"ssl.endpoint.identification.algorithm", "ssl.cipher.suites", "ssl.protocol", "ssl.enabled.protocols"}

func trustedNodes(all []secretAt) *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, s := range all {
		o := object{}.set("secretName", text(s.name))
		switch {
		case strings.Contains(s.key, globSeparator):
			o = o.set("pattern", text("{"+strings.ReplaceAll(s.key, globSeparator, ",")+"}"))
		case isGlob(s.key):
			o = o.set("pattern", text(s.key))
		default:
			o = o.set("certificate", text(s.key))
		}
		list.Content = append(list.Content, o.node())
	}
	return list
}

// namespaceFor is the one that the Secrets of clusters are in, the first of several; "" where none says.
func namespaceFor(clusters ...Cluster) string {
	for _, c := range clusters {
		if c.Login == nil {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(c.Login.config)) {
			if all, ok := secretsAt(c.Login.config[key].reference); ok && all[0].namespace != "" {
				return all[0].namespace
			}
		}
	}
	return ""
}

// loginEntries are the variables of one side that say how a cluster is logged in to, and those that hold secrets and are not to be written,
// since somebody has set them; false where such a secret stands elsewhere.
func loginEntries(prefix string, c Cluster, secrets bool) (written, withheld []string, ok bool) {
	if c.Login == nil {
		return nil, nil, true
	}
	var more strings.Builder
	for _, key := range slices.Sorted(maps.Keys(c.Login.config)) {
		v := c.Login.config[key]
		i := slices.IndexFunc(loginVariables, func(l loginVariable) bool { return l.key == key })
		literal := v.literal && !secrets
		if i < 0 {
			if literal {
				return nil, nil, false
			}
			fmt.Fprintf(&more, "%s=%s\n", escapeKey(key), escapeValue(cmp.Or(v.reference, v.text)))
			continue
		}
		entry, said := loginVariables[i].entry(prefix, v)
		switch name, _, _ := strings.Cut(entry, "="); {
		case !said:
			fmt.Fprintf(&more, "%s=%s\n", escapeKey(key), escapeValue(cmp.Or(v.reference, v.text)))
		case literal && v.path == name && v.file == "":
			withheld = append(withheld, entry)
		case literal:
			return nil, nil, false
		default:
			written = append(written, entry)
		}
	}
	if more.Len() > 0 {
		written = append(written, prefix+"PROPERTIES="+more.String())
	}
	return written, withheld, true
}

// directoryReference finds a reference to all that is in a file.
var directoryReference = regexp.MustCompile(`^\$\{(?:directory|strimzidir):([^}:]*):([^}:]*)\}$`)

// entry is the variable that says a setting; false where it can't.
func (l loginVariable) entry(prefix string, v value) (string, bool) {
	file := directoryReference.FindStringSubmatch(v.reference)
	switch {
	case file != nil && l.orFile:
		return prefix + l.name + fileSuffix + "=" + filepath.Join(file[1], file[2]), true
	case l.fromFile && file == nil:
		return "", false
	case l.fromFile:
		return prefix + l.name + "=" + filepath.Join(file[1], file[2]), true
	case l.key == identificationKey && v.reference == "":
		return fmt.Sprintf("%s%s=%v", prefix, l.name, v.text != ""), true
	case v.reference == "" && strings.TrimSpace(v.text) == "":
		return "", false
	}
	return prefix + l.name + "=" + cmp.Or(v.reference, v.text), true
}

const identificationKey = "ssl.endpoint.identification.algorithm"
