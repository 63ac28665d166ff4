package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kferry/kferry/shared/cli"
	"github.com/kferry/kferry/shared/groups"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// These tests hold the architecture: who may import whom, what stands at the top, and that the README tells of what there is.

const module = "github.com/kferry/kferry"

// A rule is what a package may import.
type rule struct {
	ours    []string // of this module's packages
	foreign []string // prefixes of others; "" is any
}

// everyday libraries do no harm anywhere above the codecs.
var everyday = []string{"github.com/hashicorp/go-multierror", "github.com/prometheus/client_golang", "golang.org/x/sync"}

// rules is the import table. Imports point one way: from main down to mm2 and batch.
var rules = map[string]rule{
	".":               {ours: []string{"shared/cli"}},
	"shared/mm2":      {},
	"shared/connect":  {ours: []string{"shared/spec", "shared/mm2"}, foreign: everyday},
	"shared/keystore": {},
	"shared/batch":    {foreign: []string{"github.com/klauspost/compress", "github.com/pierrec/lz4"}},
	"shared/spec": {
		ours:    []string{"shared/keystore", "shared/mm2"},
		foreign: with("github.com/caarlos0/env", "go.yaml.in/yaml", "github.com/dlclark/regexp2"),
	},
	"shared/kafka": {ours: []string{"shared/kafka/login", "shared/spec", "shared/mm2", "shared/batch"}, foreign: with("github.com/twmb/franz-go")},
	// login is how franz-go connects, apart from kafka since it brings libraries of its own.
	"shared/kafka/login": {ours: []string{"shared/spec", "shared/keystore"}, foreign: with("github.com/twmb/franz-go", "github.com/aws/aws-sdk-go-v2", "github.com/jcmturner/gokrb5")},
	"shared/lease":       {ours: []string{"shared/kafka", "shared/spec", "shared/mm2"}, foreign: with("github.com/nats-io/nats.go")},
	"shared/groups":      {ours: []string{"shared/offsets", "shared/lease", "shared/kafka", "shared/spec", "shared/mm2"}},
	"shared/offsets":     {ours: []string{"shared/kafka", "shared/spec", "shared/mm2"}},
	"shared/follow":      {ours: []string{"shared/lease", "shared/kafka", "shared/spec"}},
	// verify knows no cursor and no batch: it is to find what they get wrong.
	"shared/verify": {ours: []string{"shared/kafka", "shared/spec"}, foreign: with("golang.org/x/time/rate")},
	"shared/local": {
		ours:    []string{"shared/lease", "shared/kafka", "shared/spec", "shared/mm2", "shared/batch"},
		foreign: with("github.com/twmb/franz-go", "github.com/nats-io"),
	},
	"coordinator": {ours: []string{"shared/connect", "shared/follow", "shared/groups", "shared/offsets", "shared/lease", "shared/kafka", "shared/spec", "shared/mm2", "shared/batch"}, foreign: everyday},
	"functions":   {ours: []string{"shared/connect", "shared/follow", "shared/groups", "shared/offsets", "shared/lease", "shared/kafka", "shared/spec", "shared/mm2", "shared/batch"}, foreign: everyday},
	"shared/cli": {
		ours:    []string{"coordinator", "functions", "shared/connect", "shared/local", "shared/lease", "shared/verify", "shared/kafka", "shared/spec"},
		foreign: with("github.com/spf13/cobra", "golang.org/x/crypto/x509roots/fallback", "github.com/lmittmann/tint", "golang.org/x/term", "golang.org/x/time/rate"),
	},
}

func with(libraries ...string) []string { return append(libraries, everyday...) }

// outside are trees that run kferry rather than are kferry.
func outside(folder string) bool {
	tree, _, _ := strings.Cut(folder, "/")
	return tree == "integration" || tree == "deploy"
}

// apart never meet, not even in tests: they know each other by what is on the queue.
var apart = [][2]string{{"coordinator", "functions"}, {"functions", "coordinator"}}

func TestImports(t *testing.T) {
	met := map[[2]string]bool{} // lines of the table: a folder and the foreign prefix that one of its files needs
	for file, imports := range everyImport(t) {
		folder := path.Dir(file)
		for _, imported := range imports {
			ours, isOurs := strings.CutPrefix(imported, module+"/")
			if isOurs && slices.Contains(apart, [2]string{folder, ours}) {
				t.Errorf("%s imports %s; they meet in lease.Task alone", file, ours)
			}
			if strings.HasSuffix(file, "_test.go") || outside(folder) {
				continue // tests meet real servers, and the packages that start them
			}
			rule, known := rules[folder]
			allowed := slices.IndexFunc(rule.foreign, func(p string) bool { return strings.HasPrefix(imported, p) })
			if allowed >= 0 {
				met[[2]string{folder, rule.foreign[allowed]}] = true
			}
			switch {
			case !known:
				t.Fatalf("%s: the import table has no line for %s; add a package only when a name there would lie", file, folder)
			case isOurs && !slices.Contains(rule.ours, ours):
				t.Errorf("%s imports %s, which it must not: imports point one way", file, ours)
			case !isOurs && !standard(imported) && allowed < 0:
				t.Errorf("%s imports %s, which %s must not", file, imported, folder)
			}
		}
	}
	for folder, rule := range rules {
		for _, prefix := range rule.foreign {
			if !slices.Contains(everyday, prefix) && !met[[2]string{folder, prefix}] {
				t.Errorf("the import table allows %s to import %s, which it doesn't: a table that allows what isn't there holds less", folder, prefix)
			}
		}
	}
}

// standard packages have no dot in their first element.
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

// everyImport lists what the module's files import, by path. Files that only other platforms build are among them.
func everyImport(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata"):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(name) != ".go":
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		all[name] = nil
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			all[name] = append(all[name], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The names at the top are the project owner's.
func TestTopLevel(t *testing.T) {
	fixed := []string{
		"LICENSE", "README.md", "Taskfile.yml", "coordinator", "deploy", "functions", "go.mod", "go.sum", "integration",
		"main.go", "main_test.go", "shared",
	}
	for _, name := range tracked(t) {
		if !slices.Contains(fixed, name) && !strings.HasPrefix(name, ".") {
			t.Errorf("%s must not stand at the top", name)
		}
	}
	for _, name := range fixed {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("%s is missing at the top", name)
		}
	}
	for _, entry := range entries(t, "shared") {
		if !entry.IsDir() {
			t.Errorf("shared/%s: shared holds folders only", entry.Name())
		}
	}
}

// tracked are the names at the top that belong to the project: what git knows, since people keep files of their own beside it. Where
// there is no repository nothing tells them apart, and none is looked at.
func tracked(t *testing.T) (names []string) {
	t.Helper()
	listed, err := exec.Command("git", "ls-files", "-z").Output()
	if err != nil {
		t.Logf("git does not tell what belongs to the project: %v", err)
	}
	for file := range strings.SplitAfterSeq(string(listed), "\x00") {
		if file == "" {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(file, "\x00"), "/")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func entries(t *testing.T, folder string) []os.DirEntry {
	t.Helper()
	all, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestReadmeListsThePackages(t *testing.T) {
	there := map[string]bool{}
	for file := range everyImport(t) {
		if folder := path.Dir(file); folder != "." && !outside(folder) {
			there[folder] = true
		}
	}
	if got, want := firstCells(t, "package"), slices.Sorted(maps.Keys(there)); !slices.Equal(got, want) {
		t.Errorf("README's packages are %q, those of the module %q", got, want)
	}
	if want := slices.Sorted(maps.Keys(rules)); !slices.Equal(append([]string{"."}, slices.Sorted(maps.Keys(there))...), want) {
		t.Errorf("the import table has lines for %q", want)
	}
	diagram := between(t, "```diagram", "```")
	for _, name := range regexp.MustCompile(`\b(?:shared/\w+|coordinator|functions)\b`).FindAllString(diagram, -1) {
		if !there[name] {
			t.Errorf("README's diagram names %s, which is not there", name)
		}
	}
	for _, name := range []string{"coordinator", "functions", "shared/lease", "shared/spec", "shared/kafka"} {
		if !strings.Contains(diagram, name) {
			t.Errorf("README's diagram lacks %s", name)
		}
	}
}

func TestReadmeListsTheVariables(t *testing.T) {
	var rows []string
	for _, v := range spec.Variables() {
		byDefault := ""
		if v.Default != "" {
			byDefault = "`" + strings.ReplaceAll(v.Default, "|", `\|`) + "`"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", v.Name, byDefault, v.Meaning))
	}
	sameTable(t, "variable", rows)
}

func TestReadmeListsTheCommands(t *testing.T) {
	var help bytes.Buffer
	if code := cli.Run(t.Context(), cli.Process{Args: []string{"help"}, Out: &help, Err: &help}); code != 0 {
		t.Fatalf("kferry help: exit code %d", code)
	}
	_, list, _ := strings.Cut(help.String(), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var want []string
	for line := range strings.Lines(list) {
		if name := strings.Fields(line)[0]; name != "help" {
			want = append(want, "kferry "+name)
		}
	}
	slices.Sort(want)
	if got := firstCells(t, "command"); len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("README's commands are %q, those of kferry %q", got, want)
	}
}

func TestReadmeListsTheReasons(t *testing.T) {
	var rows []string
	for _, name := range constants(t, "shared/lease/reason.go", "Reason") {
		who := "itself"
		if r := lease.Reason(name); r.Decide() {
			who = "you"
			if slices.Contains(spec.OnHoldReasons(), name) {
				who += " or your policy"
			}
			who += "; `--accept-gap` " + r.Accept()
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", name, lease.Reason(name).Text(), who))
	}
	sameTable(t, "reason", rows)
}

func TestReadmeListsTheReasonsOfGroups(t *testing.T) {
	var rows []string
	for _, name := range constants(t, "shared/groups/reason.go", "Reason") {
		rows = append(rows, fmt.Sprintf("| `%s` | %s |", name, groups.Reason(name).Text()))
	}
	sameTable(t, "why", rows)
}

func TestReadmeListsTheWaysOfBatches(t *testing.T) {
	want := append(constants(t, "shared/batch/check.go", "Reason"), "passed")
	slices.Sort(want)
	if got := firstCells(t, "how"); len(want) < 2 || !slices.Equal(got, want) {
		t.Errorf("README's ways are %q, those of kferry_batches_total %q", got, want)
	}
}

// The choices are resume's flags.
func TestReadmeListsTheChoices(t *testing.T) {
	var help bytes.Buffer
	if code := cli.Run(t.Context(), cli.Process{Args: []string{"resume", "--help"}, Out: &help, Err: &help}); code != 0 {
		t.Fatalf("kferry resume --help: exit code %d", code)
	}
	got := firstCells(t, "choice")
	for _, choice := range got {
		if flag, _, _ := strings.Cut(choice, " "); !strings.Contains(help.String(), flag+" ") {
			t.Errorf("README names %s, which kferry resume doesn't know", flag)
		}
	}
	if len(got) != 3 {
		t.Errorf("README has the choices %q", got)
	}
}

// The reasons that a policy may be set for are reasons, wait for a person, and stand in README.
func TestReadmeListsThePolicies(t *testing.T) {
	policies := between(t, "**Policies.**", "**Gaps.**")
	for _, reason := range spec.OnHoldReasons() {
		if !lease.Reason(reason).Decide() || !strings.Contains(policies, "`"+reason+"`") {
			t.Errorf("a policy may be set for %s: waits for a person: %v, README:\n%s", reason, lease.Reason(reason).Decide(), policies)
		}
	}
}

func TestReadmeListsTheStates(t *testing.T) {
	want := constants(t, "coordinator/plan.go", "State")
	slices.Sort(want)
	if got := firstCells(t, "state"); !slices.Equal(got, want) {
		t.Errorf("README's states are %q, the coordinator's %q", got, want)
	}
}

// Each promise of the README, and each difference from MirrorMaker, is held by tests, which have to be where it says.
func TestReadmeNamesTheTestsOfItsPromises(t *testing.T) {
	promises, differences := table(t, "promise"), table(t, "difference")
	if len(promises) == 0 || len(differences) == 0 {
		t.Fatal("README has no table of promises, or none of differences")
	}
	rows := append(promises, differences...)
	link := regexp.MustCompile(`\[(Test\w+)\]\(([\w/]+_test\.go)\)`)
	for _, row := range rows {
		links := link.FindAllStringSubmatch(row, -1)
		if len(links) == 0 {
			t.Errorf("no test holds %s", row)
		}
		for _, l := range links {
			text, err := os.ReadFile(l[2])
			if err != nil || !strings.Contains(string(text), "\nfunc "+l[1]+"(t *testing.T) {") {
				t.Errorf("%s has no test %s (%v)", l[2], l[1], err)
			}
		}
	}
}

// mirrorMakersTests tells, of each test in MirrorMaker's own suites, which of these has the same scenario.
const mirrorMakersTests = "integration/testdata/mirrormaker-tests.txt"

// Every test of MirrorMaker's is accounted for: by a test that is where the table says, or by a reason why there is none.
func TestMirrorMakersTestsHaveCounterparts(t *testing.T) {
	const all = 186 + 4*17 + 1 + 14 // in the jars of 4.3.0, run again in four subclasses, of 4.4 beside that, and left out
	text, err := os.ReadFile(mirrorMakersTests)
	if err != nil {
		t.Fatal(err)
	}
	seen, class := map[string]bool{}, ""
	expected, counted := map[string]int{}, map[string]int{}
	for line := range strings.SplitSeq(string(text), "\n") {
		method, isTest := strings.CutPrefix(line, "  ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case !isTest:
			n := 0
			if _, err := fmt.Sscanf(line, "%s %d", &class, &n); err != nil {
				t.Fatalf("%q is no class and number of tests: %v", line, err)
			}
			expected[class] += n
			continue
		}
		method, target, _ := strings.Cut(method, "  ")
		target, why, _ := strings.Cut(target, " | ")
		original := class + "." + method
		if seen[original] {
			t.Errorf("%s is there twice", original)
		}
		seen[original] = true
		counted[class]++
		switch {
		case target != "-":
			if err := hasTest(target); err != nil {
				t.Errorf("%s: %v", original, err)
			}
		case why == "":
			t.Errorf("%s has no counterpart, and no reason why", original)
		}
	}
	if !maps.Equal(counted, expected) || len(seen) != all {
		t.Errorf("%d tests, want %d; of each class %v, want %v", len(seen), all, counted, expected)
	}
}

// hasTest looks for a test like "shared/mm2 TestCycles", or with the name of a case in it: a text of the same file that begins so.
func hasTest(target string) error {
	folder, name, _ := strings.Cut(target, " ")
	name, part, _ := strings.Cut(name, "/")
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !bytes.Contains(text, []byte("\nfunc "+name+"(t *testing.T) {")) {
			continue
		}
		if part != "" && !bytes.Contains(text, []byte(`"`+part)) {
			return fmt.Errorf("%s in %s has no case %q", name, file, part)
		}
		return nil
	}
	return fmt.Errorf("%s has no test %s", folder, name)
}

// Whoever copies the first mirror out of the README must not meet an error.
func TestReadmeMirrorsLoad(t *testing.T) {
	s, err := spec.Load(nil, []string{"KFERRY_MIRROR=" + between(t, "```yaml\n", "```")})
	if err != nil || len(s.Flows) != 2 || len(s.Warnings) > 0 {
		t.Errorf("README's mirror.yaml: %d flows, warnings %q, error %v", len(s.Flows), s.Warnings, err)
	}
	var environ []string
	for line := range strings.Lines(readme(t)) {
		if variables, is := strings.CutPrefix(line, "export "); is {
			environ = append(environ, strings.Fields(strings.ReplaceAll(variables, "'", ""))...)
		}
	}
	if s, err = spec.Load(nil, environ); err != nil || len(s.Flows) != 1 {
		t.Errorf("README's variables %q: %d flows, error %v", environ, len(s.Flows), err)
	}
}

// foreignFlags are those that files in deploy/ name of other programs.
var foreignFlags = map[string][]string{
	"deploy/Dockerfile":                  {"--build-arg", "--chown", "--from", "--platform", "--target"},
	"deploy/compose.yaml":                {"--bootstrap-server", "--build", "--command-property", "--config", "--create", "--if-not-exists", "--jetstream", "--num-records", "--partitions", "--record-size", "--scale", "--storage", "--store", "--throughput", "--topic"},
	"deploy/kubernetes/nats.values.yaml": {"--from-literal"},
}

// Every variable, flag and command of kferry's that is named in deploy/ is there.
func TestDeployNamesWhatIsThere(t *testing.T) {
	variables, flags, commands := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, v := range spec.Variables() {
		variables[v.Name] = true
	}
	for _, command := range firstCells(t, "command") {
		name := strings.TrimPrefix(command, "kferry ")
		commands[name] = true
		for _, match := range regexp.MustCompile(`--[a-z][a-z0-9-]+`).FindAllString(help(t, name), -1) {
			flags[match] = true
		}
	}
	variable, flag, command := regexp.MustCompile(`\b(?:KFERRY|NATS)_[A-Z0-9_]+\b`), regexp.MustCompile(`(?:^|[ \[",])(--[a-z][a-z-]+)`), regexp.MustCompile(`(?:"kferry|/kferry|\bargs: \[|\bcommand: \[|Command: \[)\s?([a-z]+)\b`)
	met := 0
	for _, file := range deployed(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range variable.FindAllString(string(text), -1) {
			if met++; !variables[name] {
				t.Errorf("%s sets %s, which kferry doesn't know", file, name)
			}
		}
		foreign := map[string]bool{}
		for _, match := range flag.FindAllStringSubmatch(string(text), -1) {
			if foreign[match[1]] = slices.Contains(foreignFlags[file], match[1]); !foreign[match[1]] && !flags[match[1]] {
				t.Errorf("%s gives %s, which kferry doesn't know", file, match[1])
			}
		}
		for _, name := range foreignFlags[file] {
			if !foreign[name] {
				t.Errorf("%s has no %s; a list that allows what isn't there holds less", file, name)
			}
		}
		for _, match := range command.FindAllStringSubmatch(string(text), -1) {
			if met++; !commands[match[1]] {
				t.Errorf("%s runs kferry %s, which is no command", file, match[1])
			}
		}
	}
	if met < 40 {
		t.Errorf("deploy names variables and commands %d times; the test misses the others", met)
	}
}

// Whoever builds an image gives the version to a variable that is there; the linker passes over any other.
func TestVersionIsGivenToWhatIsThere(t *testing.T) {
	given := regexp.MustCompile(`-X github\.com/kferry/kferry/(\S+)\.(\w+)=`)
	for _, file := range []string{"deploy/Dockerfile", "integration/setup.sh", "shared/cli/version.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all := given.FindAllStringSubmatch(string(text), -1)
		if len(all) == 0 {
			t.Errorf("%s gives no version", file)
		}
		for _, to := range all {
			if source, err := os.ReadFile(filepath.Join(to[1], "version.go")); err != nil || !strings.Contains(string(source), "\nvar "+to[2]+" string\n") {
				t.Errorf("%s: %s has no variable %s (%v)", file, to[1], to[2], err)
			}
		}
	}
}

// deployed are the files in deploy/ that somebody deploys.
func deployed(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir("deploy", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == filepath.Join("deploy", "check"):
			return fs.SkipDir
		case !entry.IsDir():
			files = append(files, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil || len(files) < 20 {
		t.Fatalf("deploy holds %d files, %v", len(files), err)
	}
	return files
}

func help(t *testing.T, command string) string {
	t.Helper()
	var out bytes.Buffer
	if code := cli.Run(t.Context(), cli.Process{Args: []string{command, "--help"}, Out: &out, Err: &out}); code != 0 {
		t.Fatalf("kferry %s --help: exit code %d", command, code)
	}
	return out.String()
}

// Who installs NATS with the values in deploy/ gives each role the rights that README says, and those are held by a test of their own.
func TestDeployedRightsAreThoseOfReadme(t *testing.T) {
	type user struct {
		Name        string `yaml:"user"`
		Permissions struct {
			Publish   []string `yaml:"publish"`
			Subscribe []string `yaml:"subscribe"`
		} `yaml:"permissions"`
	}
	var values struct {
		Config struct {
			Merge struct {
				Authorization struct {
					Users []user `yaml:"users"`
				} `yaml:"authorization"`
			} `yaml:"merge"`
		} `yaml:"config"`
	}
	text, err := os.ReadFile("deploy/kubernetes/nats.values.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &values)
	}
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile(`"([^"]+)"`)
	subjects := func(text string) (all []string) {
		for _, match := range quoted.FindAllStringSubmatch(text, -1) {
			all = append(all, match[1])
		}
		return all
	}
	told := regexp.MustCompile(`(?s)user: (\w+),.*?publish: \[(.*?)\]\s+subscribe: \[(.*?)\]`).FindAllStringSubmatch(between(t, "```nats", "```"), -1)
	if len(told) != 3 || len(values.Config.Merge.Authorization.Users) != len(told) {
		t.Fatalf("README has %d users, the values %d", len(told), len(values.Config.Merge.Authorization.Users))
	}
	for i, u := range values.Config.Merge.Authorization.Users {
		if u.Name != told[i][1] || !slices.Equal(u.Permissions.Publish, subjects(told[i][2])) || !slices.Equal(u.Permissions.Subscribe, subjects(told[i][3])) {
			t.Errorf("%s is allowed %q", u.Name, u.Permissions)
		}
	}
}

// The mirrors that deploy/ brings load without a warning, with the Secrets that the README has people make.
func TestDeployedMirrorsLoad(t *testing.T) {
	secrets := t.TempDir()
	for _, name := range []string{"kafka/ca.crt", "kafka/central", "kafka/kafka-dc-1", "kafka/kafka-dc-2"} {
		text := []byte("secret")
		if path.Ext(name) == ".crt" {
			text = authority(t)
		}
		if err := os.MkdirAll(filepath.Join(secrets, "kafka"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(secrets, filepath.FromSlash(name)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"deploy/mirror.yaml", "deploy/kubernetes/base/mirror.yaml", "deploy/ecs/mirror.yaml"} {
		s, err := spec.Load([]string{file}, []string{"KFERRY_SECRETS_DIR=" + secrets, "KAFKA_PASSWORD=secret"})
		if err != nil || len(s.Flows) != 2 || len(s.Warnings) > 0 {
			t.Errorf("%s: %d flows, warnings %q, error %v", file, len(s.Flows), s.Warnings, err)
		}
	}
}

// authority is a certificate that signs itself, PEM.
func authority(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// constants are the values of a file's typed string constants.
func constants(t *testing.T, file, typed string) (values []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile(`(?m)^\s+\w+\s+`+typed+`\s+= "([a-z_-]+)"`).FindAllStringSubmatch(string(text), -1) {
		values = append(values, match[1])
	}
	if len(values) == 0 {
		t.Fatalf("%s holds no constant of type %s", file, typed)
	}
	return values
}

// table returns the rows of README's table whose first column has the name.
func table(t *testing.T, column string) []string {
	t.Helper()
	var rows []string
	inside := false
	for line := range strings.Lines(readme(t)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "| "+column+" |"):
			inside = true
		case !strings.HasPrefix(line, "|"):
			inside = false
		case inside && !strings.HasPrefix(line, "| ---"):
			rows = append(rows, line)
		}
	}
	return rows
}

func sameTable(t *testing.T, column string, want []string) {
	t.Helper()
	if got := table(t, column); !slices.Equal(got, want) {
		t.Errorf("README's table of each %s should hold these lines:\n%s", column, strings.Join(want, "\n"))
	}
}

// firstCells are the names in a table's first column, sorted.
func firstCells(t *testing.T, column string) (names []string) {
	t.Helper()
	for _, row := range table(t, column) {
		names = append(names, strings.Trim(strings.Split(row, "|")[1], " `"))
	}
	slices.Sort(names)
	return names
}

func between(t *testing.T, begin, end string) string {
	t.Helper()
	_, after, found := strings.Cut(readme(t), begin)
	inside, _, closed := strings.Cut(after, end)
	if !found || !closed {
		t.Fatalf("README has no %s block", begin)
	}
	return inside
}

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
