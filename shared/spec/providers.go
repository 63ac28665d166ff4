package spec

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// This file resolves references to configuration providers, by the rules of Kafka's ConfigTransformer: ${name:path:key} or
// ${name:key}, any number of them in a value, and what takes their place is not looked at again. Where Kafka leaves a
// reference that leads nowhere as it is, so that a broker is given "${…}" for a password, it is a mistake here.

// reference has the form of Kafka's: a path ends at the first colon behind its own.
var reference = regexp.MustCompile(`\$\{([^}]*?):(?:([^}]*?):)?([^}]*?)\}`)

// A provider holds values. What it says why it can't give one is safe to show.
type provider func(path, key string) (string, error)

const (
	fileClass      = "org.apache.kafka.common.config.provider.FileConfigProvider"
	directoryClass = "org.apache.kafka.common.config.provider.DirectoryConfigProvider"
	variableClass  = "org.apache.kafka.common.config.provider.EnvVarConfigProvider"
	secretClass    = "io.strimzi.kafka.KubernetesSecretConfigProvider"
	configMapClass = "io.strimzi.kafka.KubernetesConfigMapConfigProvider"
)

// providerClasses are those that have a counterpart here.
var providerClasses = map[string]func(providers, parameters) provider{
	fileClass: providers.file, directoryClass: providers.directory, variableClass: providers.variable,
	"io.strimzi.kafka.EnvVarConfigProvider": providers.variable,
	secretClass:                             providers.secret, configMapClass: providers.secret,
}

// wellKnownClasses are what the names stand for that need no declaration: Strimzi's own, and those that everybody uses.
var wellKnownClasses = map[string]string{
	"file": fileClass, "directory": directoryClass, "env": variableClass, "secrets": secretClass, "configmaps": configMapClass,
	"strimzifile": fileClass, "strimzidir": directoryClass, "strimzienv": variableClass, secretsProvider: secretClass,
}

// providers are the places that references may lead to.
type providers struct {
	environ map[string]string
	secrets secrets
}

// parameters are those of one provider: config.providers.NAME.param.*
type parameters map[string]value

// resolve is a setting with what its references stand for. declared holds config.providers and what belongs to it.
func (p providers) resolve(r *report, declared settings, key string, v value) value {
	if !v.set || v.lost || v.reference != "" {
		return v
	}
	v = v.hideSecrets(key)
	var text strings.Builder
	whole := v
	from := 0
	for _, at := range reference.FindAllStringSubmatchIndex(v.text, -1) {
		part := func(i int) string {
			if at[2*i] < 0 {
				return ""
			}
			return v.text[at[2*i]:at[2*i+1]]
		}
		text.WriteString(v.text[from:at[0]])
		from = at[1]
		found, err := p.get(declared, part(1), part(2), part(3))
		if err != nil {
			whole.lost = true
			r.wrongf(v, "%s: %v", part(0), err)
			continue
		}
		if !isCertificate(key) {
			whole = whole.hidePart(found)
		}
		text.WriteString(v.written(key, text.String(), found))
	}
	text.WriteString(v.text[from:])
	if from > 0 && !whole.lost {
		whole.reference, whole.text = v.text, text.String()
		if clientSecurity.MatchString(key) {
			whole.text = strings.TrimRight(whole.text, "\r\n") // files often end so, and nobody means it
		}
		r.references = append(r.references, v.place()+" is "+whole.shown())
	}
	return whole
}

// written is what a reference stands for as it takes its place behind a text. Within quotes of JAAS a line would end them, and so would
// a quote: Java refuses both.
func (v value) written(key, before, found string) string {
	switch {
	case v.quoted:
		return quoteJAAS(found)
	case !strings.HasSuffix(key, "sasl.jaas.config") || !inQuotes(before):
		return found
	}
	var b strings.Builder
	for i, c := range found {
		switch {
		case c == '\n' && i == len(found)-1:
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '"' && (i == 0 || found[i-1] != '\\'):
			b.WriteString(`\"`)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// inQuotes says whether a text of JAAS ends within quotes.
func inQuotes(text string) (open bool) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			open = !open
		}
	}
	return open
}

// resolveInput does so for everything that is given. Providers are declared where Connect's workers are told of them: at the
// top of mm2.properties, and in a cluster's config. What a document says of a provider holds there, and where nothing else is said of it.
func (p providers) resolveInput(r *report, in *input) {
	p.secrets.docs = append(p.secrets.docs, in.secrets...)
	everywhere, ofAlias := settings{}, map[string]settings{}
	for _, c := range in.clusters {
		everywhere = declaring(everywhere, c.config)
		ofAlias[c.alias.text] = declaring(ofAlias[c.alias.text], c.config)
	}
	within := map[*cluster]settings{}
	for _, m := range in.mirrors {
		if m.worker == nil {
			continue
		}
		for _, c := range []*cluster{m.sourceCluster, m.targetCluster} {
			within[c] = declaring(m.worker.config, everywhere)
		}
	}
	declaredFor := func(c *cluster) settings {
		if declared, there := within[c]; there {
			return declaring(c.config, declared)
		}
		return declaring(c.config, everywhere)
	}
	declared := make([]settings, len(in.mirrors)) // as it was written
	for i, m := range in.mirrors {
		if declared[i] = declaring(ofAlias[m.target.text], ofAlias[m.source.text], everywhere); m.worker != nil {
			declared[i] = declaredFor(m.worker)
		}
	}
	for _, c := range in.clusters {
		declared := declaredFor(c)
		c.alias, c.servers = p.resolve(r, declared, "", c.alias), p.resolve(r, declared, "", c.servers)
		c.config = p.resolveAll(r, declared, c.config)
	}
	for i := range in.mirrors {
		m, declared := &in.mirrors[i], declared[i]
		for _, c := range []*connector{&m.sourceConnector, &m.checkpointConnector, &m.heartbeatConnector} {
			c.config = p.resolveAll(r, declared, c.config)
		}
	}
}

// declaring is all that is said of providers, for each what is said of it first.
func declaring(all ...settings) settings {
	declared, names := settings{}, []string{}
	for _, some := range all {
		for _, name := range splitList(some[providersKey].text) {
			if slices.Contains(names, name) {
				continue
			}
			names = append(names, name)
			for key, v := range some {
				if strings.HasPrefix(key, providersKey+"."+name+".") {
					declared[key] = v
				}
			}
		}
	}
	declared[providersKey] = value{text: strings.Join(names, ","), set: len(names) > 0}
	return declared
}

// resolveAll does so for a whole map.
func (p providers) resolveAll(r *report, declared, all settings) settings {
	resolved := settings{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		resolved[key] = p.resolve(r, declared, key, all[key])
	}
	return resolved
}

func (p providers) get(declared settings, name, path, key string) (string, error) {
	found, err := p.named(declared, name)
	if err != nil {
		return "", err
	}
	return found(path, key)
}

const providersKey = "config.providers"

// named is the provider of a name: the one that the input declares, or a well-known one.
func (p providers) named(declared settings, name string) (provider, error) {
	prefix := providersKey + "." + name + "."
	class := declared[prefix+"class"]
	if !slices.Contains(splitList(declared[providersKey].text), name) {
		if class, ok := wellKnownClasses[name]; ok {
			return providerClasses[class](p, nil), nil
		}
		names := slices.Concat(slices.Sorted(maps.Keys(wellKnownClasses)), splitList(declared[providersKey].text))
		return nil, fmt.Errorf("no configuration provider is called %q%s; add it to %s and give %sclass, or change the reference", name, suggest(name, names), providersKey, prefix)
	}
	if !class.set {
		return nil, fmt.Errorf("provider %q has no class; give %sclass", name, prefix)
	}
	known, ok := providerClasses[class.text]
	if !ok {
		return nil, fmt.Errorf("provider %q is %s, which can't be run here; have its values mounted as files and take one of %s, or write the value itself",
			name, class.text, strings.Join(slices.Sorted(maps.Keys(providerClasses)), ", "))
	}
	given := parameters{}
	for key, v := range declared {
		if parameter, ok := strings.CutPrefix(key, prefix+"param."); ok {
			given[parameter] = v
		}
	}
	return known(p, given), nil
}

// splitList reads a list as Kafka does.
func splitList(text string) []string {
	var parts []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// file is for ${file:/path:key}: a file of properties, in UTF-8 here.
func (p providers) file(given parameters) provider {
	return func(path, key string) (string, error) {
		text, err := given.read(path, "write ${file:/path:key}")
		if err != nil {
			return "", err
		}
		var r report
		entries := readProperties(path, text, &r)
		if len(r.problems) > 0 {
			return "", fmt.Errorf("%s:%d is not as java.util.Properties has it; mend it there", path, r.problems[0].at.line)
		}
		var keys []string
		for _, entry := range entries {
			if entry.path == key {
				return entry.text, nil
			}
			keys = append(keys, entry.path)
		}
		return "", fmt.Errorf("%s has no key %q%s; add it there, or change the reference", path, key, suggest(key, keys))
	}
}

// directory is for ${directory:/path:file}: the whole text of a file.
func (p providers) directory(given parameters) provider {
	return func(path, key string) (string, error) {
		if path != "" && !isName(key) {
			return "", fmt.Errorf("%q is not the name of a file; write ${directory:/path:file}", key)
		}
		if path != "" {
			path = filepath.Join(path, key)
		}
		return given.read(path, "write ${directory:/path:file}")
	}
}

func isName(text string) bool { return filepath.IsLocal(text) && filepath.Base(text) == text }

// read returns the text of a file, where the parameters allow it.
func (given parameters) read(path, form string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("has no path; %s", form)
	}
	if allowed := given["allowed.paths"]; allowed.set {
		within := func(folder string) bool {
			inside, err := filepath.Rel(folder, path)
			return err == nil && filepath.IsLocal(inside)
		}
		if !slices.ContainsFunc(splitList(allowed.text), within) {
			return "", fmt.Errorf("%s is outside of %s (%s); add its folder there, or change the reference", path, allowed.text, allowed.place())
		}
	}
	return readValue(path)
}

// maxValue is far above any secret.
const maxValue = MiB

var errMissing = errors.New("there is no such file")

func readValue(path string) (string, error) {
	text, err := ReadFile(path, maxValue)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s: %w; mount it there, or mend the path", path, errMissing)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("can't be opened: %w; let this process read it", err)
	case err != nil:
		return "", fmt.Errorf("can't be read: %w; mend the path", err)
	}
	return string(text), nil
}

// variable is for ${env:NAME}.
func (p providers) variable(given parameters) provider {
	return func(path, key string) (string, error) {
		if path != "" {
			return "", fmt.Errorf("a variable has no path; write ${env:%s}", key)
		}
		if allowed := given["allowlist.pattern"]; allowed.set {
			pattern, err := compileJava(allowed.text)
			if err != nil {
				return "", fmt.Errorf("%s: %w", allowed.place(), err)
			}
			if !pattern.Match(key) {
				return "", fmt.Errorf("%s doesn't match %q (%s); change one of them", key, allowed.text, allowed.place())
			}
		}
		text, there := p.environ[key]
		if !there {
			return "", fmt.Errorf("variable %s is not set; set it, or change the reference", key)
		}
		return text, nil
	}
}

// secret is for ${secrets:namespace/name:key}.
func (p providers) secret(parameters) provider {
	return func(path, key string) (string, error) {
		namespace, name, found := strings.Cut(path, "/")
		if !found {
			namespace, name = "", path
		}
		if !isName(name) || !isName(key) && !isGlob(key) || namespace != "" && !isName(namespace) {
			return "", errors.New("doesn't name a Secret and one of its keys; write ${secrets:namespace/name:key}")
		}
		return p.secrets.get(namespace, name, key)
	}
}

// secrets are those of Kubernetes, as they are mounted or stand in the input.
type secrets struct {
	dir  string // with a folder for each, or one for each namespace; "" is none
	docs []secretDoc
}

// A secretDoc is a Secret or a ConfigMap in the input. A namespace that is "" fits every one.
type secretDoc struct {
	namespace, name string
	data, encoded   map[string]string // encoded in Base64
}

// readSecret reads a Secret or a ConfigMap. What is wrong with it matters only to who refers to it.
func readSecret(top mapping) secretDoc {
	var passed report
	metadata := top.take("metadata").mapping(&passed)
	doc := secretDoc{
		namespace: metadata.text("namespace", &passed).text,
		name:      metadata.text("name", &passed).text,
		data:      map[string]string{},
		encoded:   map[string]string{},
	}
	for field, into := range map[string]map[string]string{"data": doc.data, "stringData": doc.data} {
		if field == "data" && top.text("kind", &passed).text == "Secret" {
			into = doc.encoded
		}
		values := top.take(field).mapping(&passed)
		for _, key := range values.keys {
			into[key] = values.text(key, &passed).text
		}
	}
	return doc
}

// get is the value of a key, and whether there is one. stringData wins, as it does in Kubernetes.
func (d secretDoc) get(key string) (text string, there bool, err error) {
	if text, there = d.data[key]; there {
		return text, true, nil
	}
	encoded, there := d.encoded[key]
	if !there {
		return "", false, nil
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(encoded), ""))
	if err != nil {
		return "", true, fmt.Errorf("%q of Secret %s is not Base64; encode it, or write it under stringData", key, d.name)
	}
	return string(decoded), true, nil
}

const secretsVariable = "KFERRY_SECRETS_DIR"

// get finds a key. What is mounted is newer than what a file says.
func (s secrets) get(namespace, name, key string) (string, error) {
	full := strings.TrimPrefix(namespace+"/"+name, "/")
	var mounted string // a folder that lacks the key
	var keys []string
	for _, folder := range s.folders(namespace, name) {
		text, err := readKeys(folder, key)
		if !errors.Is(err, errMissing) {
			return text, err
		}
		if names := keysIn(folder); mounted == "" && names != nil {
			mounted, keys = folder, names
		}
	}
	for _, doc := range s.docs {
		if doc.name != name || doc.namespace != "" && namespace != "" && doc.namespace != namespace {
			continue
		}
		text, there, err := doc.getAll(key)
		if !there {
			names := slices.Concat(slices.Collect(maps.Keys(doc.data)), slices.Collect(maps.Keys(doc.encoded)))
			err = fmt.Errorf("%s has no key %q%s; add it there, or change the reference", full, key, suggest(key, names))
		}
		return text, err
	}
	switch {
	case mounted != "":
		return "", fmt.Errorf("%s has no file %q%s; add that key to the Secret, or change the reference", mounted, key, suggest(key, keys))
	case s.dir == "":
		return "", fmt.Errorf("%s is not known; add it to the input, or mount it as DIR/%s and set %s=DIR", full, full, secretsVariable)
	}
	return "", fmt.Errorf("%s: %w; mount the Secret there", filepath.Join(s.dir, namespace, name, key), errMissing)
}

// keysIn are those of a Secret that is mounted, nil where none is.
func keysIn(folder string) (keys []string) {
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		if about, err := os.Stat(filepath.Join(folder, entry.Name())); err == nil && about.Mode().IsRegular() {
			keys = append(keys, entry.Name())
		}
	}
	return keys
}

// folders are where a Secret may be mounted.
func (s secrets) folders(namespace, name string) []string {
	if s.dir == "" {
		return nil
	}
	folders := []string{filepath.Join(s.dir, namespace, name), filepath.Join(s.dir, name)}
	if namespace == "" { // it is that of the one namespace that has it, as in a document without a namespace
		if found, err := filepath.Glob(filepath.Join(globQuote.Replace(s.dir), "*", globQuote.Replace(name))); err == nil && len(found) == 1 {
			folders = append(folders, found[0])
		}
	}
	return folders
}

var globQuote = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// isGlob says whether a key stands for all that match it: one of several globs, without braces.
func isGlob(key string) bool { return strings.ContainsAny(key, `*?[\`+globSeparator) }

// globbed are the keys that match, in their order.
func globbed(keys []string, globs string) ([]string, error) {
	var patterns []string
	for glob := range strings.SplitSeq(globs, globSeparator) {
		patterns = append(patterns, globPattern(glob))
	}
	pattern, err := regexp.Compile("^(?:" + strings.Join(patterns, "|") + ")$")
	if err != nil {
		return nil, errors.New("is not a pattern; give one like *.crt")
	}
	keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return strings.HasPrefix(key, "..") || !pattern.MatchString(key) })
	slices.Sort(keys)
	return keys, nil
}

// globPattern writes a glob of Java's, without braces, as a regular expression. In brackets only "!" and "-" mean anything.
func globPattern(glob string) string {
	var b strings.Builder
	for rest := glob; rest != ""; rest = rest[1:] {
		switch {
		case rest[0] == '*':
			b.WriteString(".*")
		case rest[0] == '?':
			b.WriteString(".")
		case rest[0] == '\\' && len(rest) > 1:
			rest = rest[1:]
			b.WriteString(regexp.QuoteMeta(rest[:1]))
		case rest[0] == '[' && strings.Contains(rest, "]"):
			set, _, _ := strings.Cut(rest[1:], "]")
			rest = rest[len(set)+1:]
			b.WriteString("[")
			if inverse, ok := strings.CutPrefix(set, "!"); ok {
				b.WriteString("^")
				set = inverse
			}
			b.WriteString(strings.NewReplacer(`\`, `\\`, "[", `\[`, "^", `\^`, "&", `\&`).Replace(set) + "]")
		default:
			b.WriteString(regexp.QuoteMeta(rest[:1]))
		}
	}
	return b.String()
}

// readKeys reads what is mounted under a key, or under all that match one, each beginning a line.
func readKeys(folder, key string) (string, error) {
	if !isGlob(key) {
		return readValue(filepath.Join(folder, key))
	}
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errMissing
	}
	if err != nil {
		return "", fmt.Errorf("can't be looked into: %w; let this process read it", err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return joinKeys(names, key, folder, func(name string) (string, error) { return readValue(filepath.Join(folder, name)) })
}

func joinKeys(names []string, globs, where string, get func(string) (string, error)) (string, error) {
	found, err := globbed(names, globs)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("no key in %s matches %s; add one there, or change the pattern", where, globs)
	}
	var texts []string
	for _, name := range found {
		text, err := get(name)
		if err != nil {
			return "", err
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "\n"), nil
}

// getAll is get, and for a glob all that match it.
func (d secretDoc) getAll(key string) (text string, there bool, err error) {
	if !isGlob(key) {
		return d.get(key)
	}
	names := slices.Concat(slices.Collect(maps.Keys(d.data)), slices.Collect(maps.Keys(d.encoded)))
	slices.Sort(names)
	text, err = joinKeys(slices.Compact(names), key, d.name, func(name string) (string, error) {
		text, _, err := d.get(name)
		return text, err
	})
	return text, true, err
}
