package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/secret"
)

// withConfigFile puts the flags of --config.file (or HEARTH_CONFIG_FILE) behind the arguments. Flags that the command
// line or the environment sets are left out, so that they win; so are flags of other commands only, so that one file serves
// all roles of a cluster. A name that no command knows is an error.
func withConfigFile(app *kingpin.Application, args []string) ([]string, error) {
	path := flagValue(args, "config.file")
	if path == "" {
		path = os.Getenv("HEARTH_CONFIG_FILE")
	}
	if path == "" {
		return args, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--config.file: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("--config.file %s: %w", path, secret.Scrub(raw, err))
	}
	if len(doc.Content) == 0 {
		return args, nil
	}
	if doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("--config.file %s: must be a mapping of flag names to values", path)
	}
	known, own := flagsByName(app, ""), flagsByName(app, selected(app, args))
	set := doc.Content[0].Content
	for i := 0; i+1 < len(set); i += 2 {
		name := strings.TrimLeft(set[i].Value, "-")
		flag := own[name]
		switch {
		case known[name] == nil:
			return nil, fmt.Errorf("--config.file %s:%d: no command has a flag %q", path, set[i].Line, name)
		case flag == nil || isSet(args, name):
			continue
		}
		values, err := flagValues(set[i+1])
		if err != nil {
			return nil, fmt.Errorf("--config.file %s:%d: flag %s: %w", path, set[i].Line, name, err)
		}
		for _, v := range values {
			switch {
			case !flag.IsBoolFlag():
				args = append(args, "--"+name+"="+v)
			case v == "true":
				args = append(args, "--"+name)
			case v == "false":
				args = append(args, "--no-"+name)
			default:
				return nil, fmt.Errorf("--config.file %s:%d: flag %s: %q is neither true nor false", path, set[i].Line, name, v)
			}
		}
	}
	return args, nil
}

// flagValues is a scalar, a list of scalars, or, for flags whose value is YAML (--objstore.config), a mapping.
func flagValues(n *yaml.Node) ([]string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		return []string{n.Value}, nil
	case yaml.SequenceNode:
		var values []string
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: a list may hold plain values only", c.Line)
			}
			values = append(values, c.Value)
		}
		return values, nil
	case yaml.MappingNode:
		text, err := yaml.Marshal(n)
		return []string{string(text)}, err
	}
	return nil, fmt.Errorf("a value, a list of values or a mapping is expected")
}

// flagValue is the value of --name in args, "" when it is not there.
func flagValue(args []string, name string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			return v
		}
		if a == "--"+name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

func isSet(args []string, name string) bool {
	if os.Getenv(envar(name)) != "" { // set to nothing is not set, as kingpin has it
		return true
	}
	return onCommandLine(args, name)
}

func onCommandLine(args []string, name string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		return a == "--"+name || a == "--no-"+name || strings.HasPrefix(a, "--"+name+"=")
	})
}

// selected is the command that args name, "all" without one.
func selected(app *kingpin.Application, args []string) string {
	context, _ := app.ParseContext(args) // the error comes again when args are parsed
	if context != nil && context.SelectedCommand != nil {
		return context.SelectedCommand.FullCommand()
	}
	return "all"
}

// flagsByName are the flags of a command with those of all commands, or, for "", the flags of any command.
func flagsByName(app *kingpin.Application, command string) map[string]*kingpin.FlagModel {
	commands := []string{command}
	if command == "" {
		commands = nil
		for _, c := range app.Model().Commands {
			commands = append(commands, c.FullCommand)
		}
	}
	byName := map[string]*kingpin.FlagModel{}
	for _, c := range commands {
		for _, f := range flagModels(app, c) {
			byName[f.Name] = f
		}
	}
	return byName
}
