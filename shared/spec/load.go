package spec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// maxFile is far above any description, and keeps a wrong path (a device, a log) from filling the memory.
const maxFile = 16 * MiB

// Load reads the files, or where there are none KFERRY_MIRROR (a path or the text itself) or a flow in plain variables.
// Settings come from environ alone, which has the form of os.Environ. The error holds every mistake, and beside it
// the Spec holds nothing but warnings.
func Load(files []string, environ []string) (Spec, error) {
	var r report
	e := readEnvironment(environ, &r)
	in := readInput(files, e, &r)
	providers{environ: e.given, secrets: secrets{dir: e.Secrets}}.resolveInput(&r, &in)
	in.limits = r.limits(e.limits(), Limits{})
	s := in.resolve(&r)
	s.keepTargets(e.targets(s, &r))
	if len(s.Flows) == 0 && (len(s.Heartbeats) == 0 || e.Targets == "") && len(r.problems) == 0 {
		r.noFlows(in)
	}
	s.Name, s.Settings, s.Warnings = e.name(&r), e.settings(&r), r.said()
	s.References = slices.Compact(slices.Sorted(slices.Values(r.references)))
	if err := r.err(); err != nil {
		return Spec{Warnings: s.Warnings}, err
	}
	return s, nil
}

// readInput reads the one form of input that is given.
func readInput(files []string, e environment, r *report) input {
	mirror := e.value("KFERRY_MIRROR", e.Mirror)
	var in input
	var other string
	switch {
	case len(files) > 0:
		if mirror.set {
			r.wrongf(mirror, "is set although a file is given; unset it or leave the file out")
		}
		in, other = readFiles(files, r), "a file"
	case mirror.set:
		in, other = readMirror(mirror, r), "KFERRY_MIRROR"
	case len(e.givenFlow()) > 0:
		return e.input(r)
	default:
		return input{}
	}
	plain := e.givenFlow()
	if servers := e.value("KFERRY_TARGET_BOOTSTRAP_SERVERS", e.TargetServers); in.complete(servers, r) {
		plain = slices.DeleteFunc(plain, func(name string) bool { return name == servers.path })
	}
	r.refusePlain(plain, other)
	return in
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

func readFiles(files []string, r *report) input {
	var in input
	for _, name := range files {
		text, err := readFile(name)
		if err != nil {
			r.wrongf(value{path: name}, "%v", err)
			continue
		}
		in.add(readDescription(name, text, r))
	}
	return in
}

// readMirror reads KFERRY_MIRROR: text has several lines or is in braces, a path neither.
func readMirror(v value, r *report) input {
	if strings.Contains(v.text, "\n") || strings.HasPrefix(strings.TrimSpace(v.text), "{") {
		return readDescription(v.path, []byte(v.text), r)
	}
	text, err := readFile(v.text)
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

func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("no such file; give the path of a KafkaMirrorMaker2 resource or an mm2.properties")
	}
	if err != nil {
		return nil, fmt.Errorf("can't be opened: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, int64(maxFile)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("can't be read (%w); give the path of a file", err)
	case len(text) > int(maxFile):
		return nil, fmt.Errorf("holds more than %s; give the path of a KafkaMirrorMaker2 resource or an mm2.properties", maxFile)
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
