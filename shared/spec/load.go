package spec

// Load reads the files, or where there are none KFERRY_MIRROR (a path or the text itself) or a flow in plain variables.
// Settings come from environ alone, which has the form of os.Environ. The error holds every mistake.
func Load(files []string, environ []string) (Spec, error) {
	return Spec{}, nil
}

// A Variable is an environment variable that Load reads.
type Variable struct {
	Name, Default, Meaning string
}

// Variables is the table of all of them, in the order in which they are documented.
func Variables() []Variable { return nil }
