package spec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// maxFile is far above any description, and keeps a wrong path (a device, a log) from filling the memory.
const maxFile = 4 * MiB

// Load reads the files, or where there are none KFERRY_MIRROR (a path or the text itself) or a flow in plain variables.
// Settings come from environ alone, which has the form of os.Environ. The error holds every mistake, and beside it
// the Spec holds nothing but warnings.
func Load(files []string, environ []string) (Spec, error) {
	input := &source{files: files, environ: environ}
	s, err := input.load()
	if err == nil {
		s.watched(input)
	}
	return s, err
}

// A source is where a Spec is read from, any number of times.
type source struct {
	files, environ []string
	// lookups are the variables that references may lead to, nil for those of environ; docs are Secrets beside those of the input.
	lookups map[string]string
	docs    []secretDoc

	pipes  map[string][]byte   // what came out of files that can be read once only
	logins map[string]Security // as they were made before, by digest
}

func (src *source) load() (Spec, error) {
	var r report
	e := readEnvironment(src.environ, &r)
	if src.pipes == nil {
		src.pipes = map[string][]byte{}
	}
	if src.lookups == nil {
		src.lookups = e.given
	}
	in := src.readInput(e, &r)
	from := providers{environ: src.lookups, secrets: secrets{dir: e.Secrets, docs: src.docs}}
	from.resolveInput(&r, &in)
	in.limits = r.limits(e.limits(), Limits{})
	// What no login is made of any more is forgotten.
	known := src.logins
	src.logins = map[string]Security{}
	s := in.resolve(&r, known, src.logins)
	s.keepTargets(e.targets(s, &r))
	if len(s.Flows) == 0 && (len(s.Heartbeats) == 0 || e.Targets == "") && len(r.problems) == 0 {
		r.noFlows(in)
	}
	s.Name, s.Settings, s.Warnings = e.name(&r), e.settings(&r), r.said()
	s.References = slices.Compact(slices.Sorted(slices.Values(r.references)))
	s.refers = r.refers
	if e.Targets != "" {
		s.refers = slices.DeleteFunc(s.refers, func(text string) bool { return !s.holds(text) })
	}
	s.origin = &source{lookups: src.lookups, docs: slices.Concat(in.secrets, src.docs), environ: secretsOf(e)}
	if err := r.err(); err != nil {
		return Spec{Warnings: s.Warnings}, err
	}
	return s, nil
}

// secretsOf is the environment that tells where Secrets are, and nothing else.
func secretsOf(e environment) []string {
	if e.Secrets == "" {
		return nil
	}
	return []string{secretsVariable + "=" + e.Secrets}
}

// readInput reads the one form of input that is given.
func (src *source) readInput(e environment, r *report) input {
	mirror := e.value("KFERRY_MIRROR", e.Mirror)
	var in input
	var other string
	switch {
	case len(src.files) > 0:
		if mirror.set {
			r.wrongf(mirror, "is set although a file is given; unset it or leave the file out")
		}
		in, other = src.readFiles(r), "a file"
	case mirror.set:
		in, other = src.readMirror(mirror, r), "KFERRY_MIRROR"
	case len(e.givenFlow()) > 0:
		return e.input(r)
	default:
		return input{}
	}
	plain := e.givenFlow()
	var aside report // of variables that may not be for this input
	if target := e.cluster("TARGET", &aside); in.complete(target, r) {
		r.problems, r.warnings, r.passed = append(r.problems, aside.problems...), append(r.warnings, aside.warnings...), append(r.passed, aside.passed...)
		plain = slices.DeleteFunc(plain, func(name string) bool {
			return name == target.servers.path || strings.HasPrefix(name, targetPrefix) && isLoginVariable(name)
		})
	}
	plain = slices.DeleteFunc(plain, func(name string) bool { return isLoginVariable(name) && in.refersTo(name) })
	r.refusePlain(plain, other)
	return in
}

// refersTo says whether a setting refers to a variable.
func (in input) refersTo(variable string) bool {
	at := func(config settings) bool {
		for _, v := range config {
			if strings.Contains(v.text, "env:"+variable+"}") {
				return true
			}
		}
		return false
	}
	return slices.ContainsFunc(in.clusters, func(c *cluster) bool { return at(c.config) }) ||
		slices.ContainsFunc(in.mirrors, func(m mirror) bool {
			return at(m.sourceConnector.config) || at(m.checkpointConnector.config) || at(m.heartbeatConnector.config)
		})
}

func (r *report) refusePlain(given []string, other string) {
	for _, name := range given {
		within := ""
		if name == "KFERRY_ON_HOLD" {
			within = ", or set kferry.on.hold in a sourceConnector's config there"
		}
		r.wrongf(value{path: name}, "describes a flow, and so does %s; unset one of them%s", other, within)
	}
}

func (src *source) readFiles(r *report) input {
	var in input
	for _, name := range src.files {
		text, err := src.readFile(name)
		if err != nil {
			r.wrongf(value{path: name}, "%v", err)
			continue
		}
		in.add(readDescription(name, text, r))
	}
	return in
}

// readMirror reads KFERRY_MIRROR: text has several lines or is in braces, a path neither.
func (src *source) readMirror(v value, r *report) input {
	if strings.Contains(v.text, "\n") || strings.HasPrefix(strings.TrimSpace(v.text), "{") {
		return readDescription(v.path, []byte(v.text), r)
	}
	text, err := src.readFile(v.text)
	if err != nil {
		r.wrong(v, err)
		return input{}
	}
	return readDescription(v.text, text, r)
}

// readDescription reads a file of either form.
func readDescription(file string, text []byte, r *report) input {
	if isDedicated(text) {
		return readDedicated(file, text, r)
	}
	return readResources(file, text, r)
}

func (src *source) readFile(name string) ([]byte, error) {
	if text, read := src.pipes[name]; read {
		return text, nil
	}
	file, err := openNow(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("no such file; give the path of a KafkaMirrorMaker2 resource or an mm2.properties")
	}
	if err != nil {
		return nil, fmt.Errorf("can't be opened: %w", err)
	}
	defer file.Close()
	about, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("can't be read (%w); give the path of a file", err)
	}
	from := io.Reader(file)
	if about.Mode()&fs.ModeNamedPipe != 0 {
		from = &pipe{File: file}
	}
	text, err := readUpTo(from, maxFile)
	if err != nil {
		return nil, fmt.Errorf("can't be read (%w); give the path of a KafkaMirrorMaker2 resource or an mm2.properties", err)
	}
	if !about.Mode().IsRegular() {
		src.pipes[name] = text
	}
	return text, nil
}

func (r *report) noFlows(in input) {
	switch {
	case len(in.mirrors) > 0 && in.mirrors[0].form == dedicated:
		flow := FlowName(in.mirrors[0].source.text, in.mirrors[0].target.text)
		r.wrongf(in.mirrors[0].at, "no flow is on, so there is nothing to copy; set %s.enabled = true, or that of another one", flow)
	case len(in.mirrors) > 0:
		r.wrongf(value{path: "spec.mirrors"}, "no mirror has a sourceConnector, so there is nothing to copy; add sourceConnector: {} to one")
	case len(in.clusters) > 0:
		r.wrongf(value{path: "spec.mirrors"}, "no mirror is given, so there is nothing to copy; list one with sourceCluster, targetCluster and sourceConnector")
	default:
		r.wrongf(value{path: "input"}, "there is nothing to copy; give a KafkaMirrorMaker2 resource or an mm2.properties with -f or KFERRY_MIRROR, or one flow in %s", strings.Join(flowVariables[:5], ", "))
	}
}
