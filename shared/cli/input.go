package cli

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"github.com/kferry/kferry/shared/spec"
)

// flags are the variables that have a flag, by its name.
var flags = map[string]string{
	"clusters":   "KFERRY_CLUSTERS",
	"data":       "KFERRY_DATA",
	"http":       "KFERRY_HTTP",
	"log-format": "KFERRY_LOG_FORMAT",
	"log-level":  "KFERRY_LOG_LEVEL",
	"memory":     "KFERRY_MEMORY",
	"name":       "KFERRY_NAME",
	"nats-url":   "NATS_URL",
	"push":       "KFERRY_PUSH",
	"slots":      "KFERRY_SLOTS",
}

// input is where a command has its specification from.
type input struct {
	process Process
	files   []string
	set     map[string]*string // by flag
}

// newInput adds -f and the named flags to a command.
func newInput(p Process, to *cobra.Command, names ...string) *input {
	in := &input{process: p, set: map[string]*string{}}
	to.Flags().StringArrayVarP(&in.files, "file", "f", nil, "file with KafkaMirrorMaker2 resources, or an mm2.properties; may be repeated (KFERRY_MIRROR)")
	for _, name := range names {
		about := variable(flags[name])
		usage := fmt.Sprintf("%s (%s)", about.Meaning, about.Name)
		if about.Default != "" {
			usage = fmt.Sprintf("%s (%s, default %s)", about.Meaning, about.Name, about.Default)
		}
		in.set[name] = to.Flags().String(name, "", usage)
	}
	return in
}

func variable(name string) spec.Variable {
	all := spec.Variables()
	i := slices.IndexFunc(all, func(v spec.Variable) bool { return v.Name == name })
	if i < 0 {
		return spec.Variable{Name: name}
	}
	return all[i]
}

// load reads the specification, and tells its warnings to whoever calls.
func (in *input) load(cmd *cobra.Command) (spec.Spec, error) {
	environ := slices.Clone(in.process.Environ)
	for name, value := range in.set {
		if cmd.Flags().Changed(name) {
			environ = append(environ, flags[name]+"="+*value) // of two entries the last one holds
		}
	}
	s, err := spec.Load(in.files, environ)
	return s, in.blame(cmd, err)
}

// blame has a mistake name the flag that was given rather than the variable that it stands for.
func (in *input) blame(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for name := range in.set {
		if cmd.Flags().Changed(name) {
			text = strings.ReplaceAll(text, "\n  "+flags[name]+": ", "\n  --"+name+": ")
		}
	}
	if text == err.Error() {
		return err
	}
	return usageError{errors.New(text)}
}

// flowsNamed are the flows of those names, or where none is given, all.
func flowsNamed(s spec.Spec, given []string) ([]spec.Flow, error) {
	if len(given) == 0 {
		return s.Flows, nil
	}
	var flows []spec.Flow
	for _, name := range given {
		flow, known := s.Flow(name)
		if !known {
			hint := ""
			if strings.HasSuffix(name, "-") {
				hint = ", in quotes: the shell took the > and what follows for itself, and may have made a file of it"
			}
			return nil, usageError{fmt.Errorf("%q is no flow; give one of %s%s", name, names(s.Flows), hint)}
		}
		flows = append(flows, flow)
	}
	return flows, nil
}

func names(flows []spec.Flow) string {
	var all []string
	for _, f := range flows {
		all = append(all, "'"+f.Name()+"'")
	}
	return strings.Join(all, ", ")
}

// oneFlowOrAll is what commands take that look at all flows unless one is named.
func oneFlowOrAll(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%s takes one flow, like 'A->B', or none for all, and %d are given", cmd.Name(), len(args))
	}
	return nil
}

// oneFlow is what commands take that are about one flow.
func oneFlow(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s takes one flow, like 'A->B', and %d are given", cmd.Name(), len(args))
	}
	return nil
}

// checkTopic refuses a --topic that none of the flows copies.
func checkTopic(flows []spec.Flow, topic string) error {
	if topic == "" || slices.ContainsFunc(flows, func(f spec.Flow) bool { return f.Selects(topic) }) {
		return nil
	}
	return usageError{fmt.Errorf("--topic %q: no topic of this name is copied by %s; give it as it is called on the source", topic, names(flows))}
}

// anyPartition is a --partition that is not given.
const anyPartition = -1

// checkPartition refuses a --partition that would be taken for none.
func checkPartition(cmd *cobra.Command, partition int32) error {
	if cmd.Flags().Changed("partition") && partition < 0 {
		return usageError{fmt.Errorf("--partition %d: give the number of a partition, which is 0 or more", partition)}
	}
	return nil
}

// logger writes text where people look at it, JSON elsewhere, unless the settings say otherwise.
func (in *input) logger(s spec.Settings, screen *screen) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cmp.Or(s.LogLevel, "info"))); err != nil {
		panic(fmt.Sprintf("cli: spec let log level %q pass", s.LogLevel))
	}
	if s.LogFormat == "json" || s.LogFormat != "text" && !screen.terminal {
		return slog.New(slog.NewJSONHandler(screen, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(tint.NewHandler(screen, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: !in.process.colours(screen)}))
}

// colours says whether escape codes are welcome: see no-color.org.
func (p Process) colours(screen *screen) bool {
	return screen.terminal && !slices.ContainsFunc(p.Environ, func(entry string) bool {
		value, set := strings.CutPrefix(entry, "NO_COLOR=")
		return set && value != ""
	})
}
