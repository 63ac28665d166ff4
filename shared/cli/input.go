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
	"data":       "KFERRY_DATA",
	"http":       "KFERRY_HTTP",
	"log-format": "KFERRY_LOG_FORMAT",
	"log-level":  "KFERRY_LOG_LEVEL",
	"memory":     "KFERRY_MEMORY",
	"name":       "KFERRY_NAME",
	"nats-url":   "NATS_URL",
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
	to.Flags().StringArrayVarP(&in.files, "file", "f", nil, "file with KafkaMirrorMaker2 resources; may be repeated (KFERRY_MIRROR)")
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
