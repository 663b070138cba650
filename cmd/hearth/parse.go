package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/conf"
)

// explain adds to err, an error of app.Parse, what kingpin leaves out: which flag has the wrong value, and where the
// value is from; that a word was taken for a command; which flag was probably meant. all are the arguments with those
// of the configuration file, and places says where that file sets them.
func explain(app *kingpin.Application, all []string, places map[string]string, err error) error {
	context, parseErr := app.ParseContext(all)
	if parseErr != nil {
		return explainUnknown(app, parseErr, err)
	}
	given := map[string]bool{}
	for _, e := range context.Elements {
		if f, ok := e.Clause.(*kingpin.FlagClause); ok && e.Value != nil {
			m := f.Model()
			given[m.Name] = true
			if !wrong(m, *e.Value, err) {
				continue
			}
			if place := places[m.Name]; place != "" {
				return fmt.Errorf("--config.file: %s: %s: %w", place, m.Name, err)
			}
			return fmt.Errorf("--%s: %w", m.Name, err)
		}
	}
	command := ""
	if context.SelectedCommand != nil {
		command = context.SelectedCommand.FullCommand()
	}
	for _, m := range flagModels(app.Model(), command) {
		if v := os.Getenv(m.Envar); v != "" && !given[m.Name] && wrong(m, v, err) {
			return fmt.Errorf("%s (--%s): %w", m.Envar, m.Name, err)
		}
	}
	return err
}

var unknownFlag = regexp.MustCompile(`^unknown long flag '--([^'=\s]*)`)

// explainUnknown explains parseErr, the error of an argument that is neither a flag nor a command. err is returned
// where there is nothing to add.
func explainUnknown(app *kingpin.Application, parseErr, err error) error {
	if m := unknownFlag.FindStringSubmatch(parseErr.Error()); m != nil {
		return unknown(app, m[1])
	}
	word, ok := strings.CutPrefix(parseErr.Error(), "unexpected ")
	switch {
	case !ok:
		return err
	case app.GetCommand(word) != nil:
		return fmt.Errorf("the command goes first: hearth %s --flag", word)
	case strings.ContainsAny(word, " \n:={"): // it may be the secret of a configuration
		return errors.New("unexpected argument, of several words: neither a command nor a flag; " +
			"is a value quoted as one argument, and its flag spelt right?")
	}
	var commands []string
	for _, c := range app.Model().Commands {
		commands = append(commands, c.FullCommand)
	}
	return fmt.Errorf("unexpected argument %q: neither a command nor a flag%s", word, conf.Suggest(word, commands))
}

// unknown is the error of a flag that the command does not have. It names the commands that have the flag, or a flag
// with nearly the same name.
func unknown(app *kingpin.Application, name string) error {
	var have []string
	for _, c := range app.Model().FlattenedCommands() {
		if flagsByName(app, c.FullCommand)[name] != nil {
			have = append(have, c.FullCommand)
		}
	}
	if have != nil {
		return fmt.Errorf("--%s: this command has no such flag; it is one of hearth %s", name, strings.Join(have, ", "))
	}
	if near := conf.Nearest(strings.TrimPrefix(name, "no-"), slices.Collect(maps.Keys(flagsByName(app, "")))); near != "" {
		return fmt.Errorf("--%s: there is no such flag; did you mean --%s?", name, near)
	}
	return fmt.Errorf("--%s: there is no such flag", name)
}

// wrong reports whether err is what the flag says of value. It sets the flag, so the flags have no use after that.
func wrong(m *kingpin.FlagModel, value string, err error) bool {
	again := m.Value.Set(value)
	return again != nil && again.Error() == err.Error()
}

// flagModels are the flags that a command has, with those of all commands.
func flagModels(app *kingpin.ApplicationModel, command string) []*kingpin.FlagModel {
	if c := commandModel(app.CmdGroupModel, command); c != nil {
		return slices.Concat(app.Flags, c.Flags)
	}
	return app.Flags
}

// commandModel is the command or group of that name below group, nil when there is none. The groups that tools are in
// have no flags.
func commandModel(group *kingpin.CmdGroupModel, name string) *kingpin.CmdModel {
	for _, c := range group.Commands {
		if c.FullCommand == name {
			return c
		}
		if found := commandModel(c.CmdGroupModel, name); found != nil {
			return found
		}
	}
	return nil
}
