package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/conf"
)

// withConfigFile appends the flags of --config.file (or HEARTH_CONFIG_FILE) to the arguments. It leaves out flags that
// the command line or the environment sets, so that those win, and flags that only other commands have, so that one
// file serves all roles of a cluster. A name that no command knows is an error. places says where the file sets each
// flag (name:line).
func withConfigFile(app *kingpin.Application, args []string) (all []string, places map[string]string, err error) {
	path := flagValue(args, "config.file")
	if path == "" {
		path = os.Getenv("HEARTH_CONFIG_FILE")
	}
	if path == "" {
		return args, nil, nil
	}
	raw, err := conf.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("--config.file: %w", err)
	}
	f := configFile{Parser: conf.Parser{Name: path}, given: args, places: map[string]string{},
		known: flagsByName(app, ""), own: flagsByName(app, selected(app, args))}
	f.Pairs(f.Document(raw), "", f.flag)
	if err := f.Err(); err != nil {
		return nil, nil, fmt.Errorf("--config.file: %w", err)
	}
	return slices.Concat(args, f.added), f.places, nil
}

// configFile reads a configuration file.
type configFile struct {
	conf.Parser
	given, added []string          // arguments: those of the command line, and those that the file adds
	places       map[string]string // of flags in the file, name:line
	known, own   map[string]*kingpin.FlagModel
}

// flag reads one flag.
func (f *configFile) flag(key, value *yaml.Node) {
	name := strings.TrimLeft(key.Value, "-")
	flag := f.own[name]
	switch {
	case f.known[name] == nil:
		f.Fault(key, "%s: no command has such a flag%s", name, conf.Suggest(name, slices.Collect(maps.Keys(f.known))))
		return
	case flag == nil || isSet(f.given, name):
		return
	}
	f.places[name] = fmt.Sprintf("%s:%d", f.Name, key.Line)
	values, ok := f.values(name, value)
	if !ok {
		return
	}
	if len(values) > 1 && !repeatable(flag) {
		f.Fault(value, "%s: one value is expected, not a list", name)
		return
	}
	for _, v := range values {
		switch {
		case !flag.IsBoolFlag():
			f.added = append(f.added, "--"+name+"="+v)
		case v == "true":
			f.added = append(f.added, "--"+name)
		case v == "false":
			f.added = append(f.added, "--no-"+name)
		default:
			f.Fault(value, "%s: %q is neither true nor false", name, v)
		}
	}
}

// values is a scalar, a list of scalars, or, for flags whose value is YAML (--objstore.config), a mapping. ok is false
// after a fault.
func (f *configFile) values(name string, n *yaml.Node) (values []string, ok bool) {
	n = conf.Resolve(n)
	switch n.Kind {
	case yaml.ScalarNode:
		if conf.IsNull(n) {
			f.Fault(n, "%s: has no value; leave the line out for the default", name)
			return nil, false
		}
		return []string{n.Value}, true
	case yaml.SequenceNode:
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				f.Fault(c, "%s: a list may hold plain values only", name)
				return nil, false
			}
			values = append(values, c.Value)
		}
		return values, true
	case yaml.MappingNode:
		text, err := yaml.Marshal(n)
		if err == nil {
			return []string{string(text)}, true
		}
	}
	f.Fault(n, "%s: a value, a list of values or a mapping is expected", name)
	return nil, false
}

// repeatable reports whether a flag may be given several times.
func repeatable(flag *kingpin.FlagModel) bool {
	c, ok := flag.Value.(interface{ IsCumulative() bool })
	return ok && c.IsCumulative()
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
	if os.Getenv(envar(name)) != "" { // kingpin does not take a variable that is set to nothing for set
		return true
	}
	return onCommandLine(args, name)
}

func onCommandLine(args []string, name string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		return a == "--"+name || a == "--no-"+name || strings.HasPrefix(a, "--"+name+"=")
	})
}

// selected is the command that args name, the default one without any.
func selected(app *kingpin.Application, args []string) string {
	context, _ := app.ParseContext(args) // any error comes again when args are parsed
	if context != nil && context.SelectedCommand != nil {
		return context.SelectedCommand.FullCommand()
	}
	return defaultCommand
}

// flagsByName are the flags of a command, with the flags that every command has. command "" stands for the flags of all
// commands.
func flagsByName(app *kingpin.Application, command string) map[string]*kingpin.FlagModel {
	commands := []string{command}
	if command == "" {
		commands = nil
		for _, c := range app.Model().FlattenedCommands() {
			commands = append(commands, c.FullCommand)
		}
	}
	byName := map[string]*kingpin.FlagModel{}
	for _, c := range commands {
		for _, f := range flagModels(app.Model(), c) {
			if was := byName[f.Name]; was == nil || was.Hidden { // one that a command has no use for is hidden there
				byName[f.Name] = f
			}
		}
	}
	return byName
}
